import Platform
import Tensors

/// Chooses the next token from its logits z (V): the likeliest, or one drawn at random.
///
///     temperature T = 0     argmax z, ties to the lower id
///     T > 0                 p_i ∝ exp(z_i / T), over the top K where K > 0; of these the fewest that are likeliest and have
///                           together at least P of the probability (the nucleus, Holtzman et al. 2020, arXiv:1904.09751)
///
/// The order temperature, top K, top P is that of Hugging Face's `generate`. Token t of a text takes number t under the seed,
/// whatever other texts are in the batch: the same prompt under the same seed gives the same text.
public struct Sampler: Equatable, Sendable {
  /// T ≥ 0.
  public var temperature: Double
  /// K; 0 for the whole vocabulary.
  public var topK: Int
  /// P in (0,1].
  public var topP: Double
  /// The seed.
  public var seed: UInt64

  /// A sampler; by default the likeliest token.
  public init(temperature: Double = 0, topK: Int = 0, topP: Double = 1, seed: UInt64 = 0) {
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
    self.seed = seed
  }

  /// The token for place `number` of a text; nil if a logit is not finite.
  ///
  /// - Complexity: O(V), with top P also the sorting of what may be in the nucleus.
  public func token<S: BinaryFloatingPoint>(_ logits: [S], number: Int) -> Int32? {
    let z = Self.widened(logits)
    guard let best = Self.argmax(z) else { return nil }
    if temperature == 0 { return Int32(best) }
    var candidates = topK > 0 && topK < z.count ? Self.largest(topK, of: z) : Array(z.indices)
    var weights = candidates.map { Double.exp((z[$0] - z[best]) / temperature) }
    var total = weights.reduce(0, +)
    if topP < 1 {
      // Whatever is less likely than (1−P)/V adds up to less than 1−P, so the rest has P already and only that need be sorted.
      let least = (1 - topP) / Double(candidates.count) * total
      var nucleus = candidates.indices.filter { weights[$0] >= least }.sorted {
        (-weights[$0], candidates[$0]) < (-weights[$1], candidates[$1])
      }
      var mass = 0.0
      let count = nucleus.firstIndex {
        mass += weights[$0]; return mass >= topP * total
      }
      nucleus.removeSubrange(min(nucleus.count, (count ?? nucleus.count) + 1)...)
      (candidates, weights) = (nucleus.map { candidates[$0] }, nucleus.map { weights[$0] })
      total = weights.reduce(0, +)
    }
    var rest = uniform(number) * total
    for (candidate, weight) in zip(candidates, weights) {
      rest -= weight
      if rest < 0 { return Int32(candidate) }
    }
    return candidates.last.map { Int32($0) }  // rounding left a rest
  }

  /// Number `number` of the seed in [0,1), with 53 bits.
  private func uniform(_ number: Int) -> Double {
    let counter = SIMD4(UInt32(truncatingIfNeeded: number), 0, 0, 0)
    let bits = Philox.numbers(counter: counter, key: RandomKey(seed: seed).derived("generate", "token"))
    return Double(UInt64(bits[0]) << 21 ^ UInt64(bits[1]) >> 11) * 0x1p-53
  }

  /// The logits as Double. The loops over V then run on a concrete type: unspecialized they would take longer than the model.
  private static func widened<S: BinaryFloatingPoint>(_ logits: [S]) -> [Double] {
    if S.self == Float.self { return logits.withUnsafeBytes { $0.bindMemory(to: Float.self).map { Double($0) } } }
    if S.self == Double.self { return logits.withUnsafeBytes { Array($0.bindMemory(to: Double.self)) } }
    return logits.map { Double($0) }
  }

  /// The largest, ties to the lower index; nil if one is not finite or there is none.
  private static func argmax(_ z: [Double]) -> Int? {
    var best = 0
    for (i, value) in z.enumerated() {
      guard value.isFinite else { return nil }
      if value > z[best] { best = i }
    }
    return z.isEmpty ? nil : best
  }

  /// The indices of the k largest, largest first, ties to the lower index: each is put into its place among the best so far.
  private static func largest(_ k: Int, of z: [Double]) -> [Int] {
    var best: [Int] = []
    best.reserveCapacity(k + 1)
    for i in z.indices {
      if best.count == k, z[i] <= z[best[k - 1]] { continue }
      var (low, high) = (0, best.count)
      while low < high {
        let middle = (low + high) / 2
        if z[best[middle]] >= z[i] { low = middle + 1 } else { high = middle }
      }
      best.insert(i, at: low)
      if best.count > k { best.removeLast() }
    }
    return best
  }
}
