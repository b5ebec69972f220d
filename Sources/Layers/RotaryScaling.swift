import Platform

/// How the rotary angles are stretched for contexts longer than those of the first training, as transformers 4.57.6 computes it.
///
/// θ_j = base^(−2j/D) is the angle by which plane j < D/2 of a head turns from a position to the next, T the positions of the first
/// training, L the largest position of a batch and one more, f the factor:
///
///     linear      θ_j / f
///     dynamic     θ_j g^(−2j/(D−2)),  g = f max(L,T)/T − (f − 1)           the base grows with the batch (NTK)
///     yarn        θ_j (1 − r_j) + θ_j r_j / f                              r_j: 0 for planes of many turns in T, 1 for those of few
///     longRoPE    θ_j / s_j,  s = short for L ≤ T, else long
///     llama3      θ_j (share + (1 − share) / f)                            as yarn, but the share is linear in the turns
///
/// Two of them depend on the batch: what a row sees then depends on the longest row beside it, and in decoding keys stay rotated as they
/// were when they were new, as in transformers. (Its dynamic form also remembers the longest batch so far until a shorter one than T
/// comes; here a batch's angles are its own, so that a run that is resumed has the unbroken one's.)
public enum RotaryScaling: Equatable, Sendable {
  /// All planes turn `factor` times slower (Chen et al. 2023, arXiv:2306.15595).
  case linear(factor: Double)
  /// Planes turn slower the longer the batch is, from T positions on.
  case dynamic(factor: Double, originalPositions: Int)
  /// Planes of few turns are slowed down, those of many left alone (Peng et al. 2023, arXiv:2309.00071).
  case yarn(YaRN)
  /// Every plane has a divisor of its own, another one from T positions on (Ding et al. 2024, arXiv:2402.13753).
  case longRoPE(LongRoPE)
  /// Llama 3.1's.
  case llama3(Llama3)

  /// The numbers of YaRN. A plane makes n turns in T positions at d(n) = D ln(T / 2πn) / (2 ln base):
  ///
  ///     r_j = (j − low) / (high − low) between 0 and 1,  low = d(fast) ≥ 0,  high = d(slow) ≤ D − 1
  public struct YaRN: Equatable, Sendable {
    /// f: how many times slower long waves turn.
    public var factor: Double
    /// Turns from which on a plane is left alone: `beta_fast`.
    public var fast = 32.0
    /// Turns below which a plane is slowed down fully: `beta_slow`.
    public var slow = 1.0
    /// Whether low is rounded down and high up: `truncate`.
    public var isTruncated = true
    /// T.
    public var originalPositions: Int
    /// What cos and sin are multiplied with: `attention_factor`.
    public var magnitude: Double

    /// Slows down by `factor`; the rest as the paper has it.
    public init(factor: Double, originalPositions: Int) {
      self.factor = factor
      self.originalPositions = originalPositions
      magnitude = Self.magnitude(factor)
    }

    /// 0.1 m ln f + 1 for f > 1, else 1.
    public static func magnitude(_ factor: Double, by m: Double = 1) -> Double { factor > 1 ? 0.1 * m * Double.log(factor) + 1 : 1 }

    /// The share r_j of plane j < D/2 that is slowed down.
    func ramp(base: Double, headWidth d: Int) -> (Int) -> Double {
      func plane(_ turns: Double) -> Double {
        Double(d) * Double.log(Double(originalPositions) / (turns * 2 * .pi)) / (2 * Double.log(base))
      }
      var (low, high) = (plane(fast), plane(slow))
      if isTruncated { (low, high) = (low.rounded(.down), high.rounded(.up)) }
      (low, high) = (max(low, 0), min(high, Double(d - 1)))
      if low == high { high += 0.001 }
      return { j in min(max((Double(j) - low) / (high - low), 0), 1) }
    }
  }

  /// The numbers of LongRoPE.
  public struct LongRoPE: Equatable, Sendable {
    /// Divisors of batches up to T positions, one a plane: `short_factor`.
    public var short: [Double]
    /// Divisors of longer ones: `long_factor`.
    public var long: [Double]
    /// T.
    public var originalPositions: Int
    /// What cos and sin are multiplied with: `attention_factor`.
    public var magnitude: Double

    /// Divisors and magnitude.
    public init(short: [Double], long: [Double], originalPositions: Int, magnitude: Double) {
      (self.short, self.long) = (short, long)
      (self.originalPositions, self.magnitude) = (originalPositions, magnitude)
    }
  }

  /// The numbers of Llama 3.1: a plane whose wavelength λ = 2π/θ is short turns as before, a long one `factor` times slower, and between
  /// the two bounds the share of the old speed falls from 1 to 0.
  ///
  ///     λ < T / high:  θ       λ > T / low:  θ / f       else  θ (share + (1 − share) / f),  share = (T/λ − low) / (high − low)
  public struct Llama3: Equatable, Sendable {
    /// f: how many times slower long waves turn.
    public var factor: Double
    /// Waves longer than T / low are slowed down fully.
    public var lowFrequencyFactor: Double
    /// Waves shorter than T / high are left alone.
    public var highFrequencyFactor: Double
    /// T.
    public var originalPositions: Double

    /// The keys of `rope_scaling`.
    public init(factor: Double, lowFrequencyFactor: Double, highFrequencyFactor: Double, originalPositions: Double) {
      self.factor = factor
      self.lowFrequencyFactor = lowFrequencyFactor
      self.highFrequencyFactor = highFrequencyFactor
      self.originalPositions = originalPositions
    }

    /// The stretched angle of a plane.
    func scaled(_ theta: Double) -> Double {
      let wavelength = 2 * Double.pi / theta
      if wavelength < originalPositions / highFrequencyFactor { return theta }
      if wavelength > originalPositions / lowFrequencyFactor { return theta / factor }
      let share = (originalPositions / wavelength - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor)
      return theta * (share + (1 - share) / factor)
    }
  }

  /// What cos and sin are multiplied with.
  public var magnitude: Double {
    switch self {
    case .linear, .dynamic, .llama3: 1
    case .yarn(let yarn): yarn.magnitude
    case .longRoPE(let long): long.magnitude
    }
  }

  /// What of L the angles depend on: batches with the same number here turn alike.
  public func dependence(on limit: Int) -> Int {
    switch self {
    case .linear, .yarn, .llama3: 0
    case .dynamic(_, let original): limit > original ? limit : 0
    case .longRoPE(let long): limit > long.originalPositions ? 1 : 0
    }
  }

  /// The stretched angles in a batch of positions below `limit`.
  ///
  /// - Precondition: `theta` has D/2 numbers, and so have LongRoPE's divisors.
  func stretched(_ theta: [Double], base: Double, limit: Int) -> [Double] {
    switch self {
    case .linear(let factor): return theta.map { $0 / factor }
    case .dynamic(let factor, let original):
      let growth = factor * Double(max(limit, original)) / Double(original) - (factor - 1)
      let last = Double(2 * theta.count - 2)
      return theta.enumerated().map { j, theta in j == 0 ? theta : theta * Double.pow(growth, -2 * Double(j) / last) }
    case .yarn(let yarn):
      let ramp = yarn.ramp(base: base, headWidth: 2 * theta.count)
      return theta.enumerated().map { j, theta in theta * (1 - ramp(j)) + theta / yarn.factor * ramp(j) }
    case .longRoPE(let long):
      return zip(theta, limit > long.originalPositions ? long.long : long.short).map { $0 / $1 }
    case .llama3(let llama3): return theta.map { llama3.scaled($0) }
    }
  }
}
