/// The nonlinearity of a gated unit, by the names of Hugging Face's `hidden_act`.
public enum Activation: String, Sendable, CaseIterable {
  /// x σ(x) = x / (1 + e⁻ˣ).
  case silu
  /// ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), the approximation of GELU that Gemma was trained with.
  case geluTanh = "gelu_pytorch_tanh"
}

/// Sizes and rules of one attention operation.
public struct AttentionForm: Equatable, Sendable {
  /// Query heads H.
  public let heads: Int
  /// Key and value heads G; head h reads group h / (H / G).
  public let keyValueHeads: Int
  /// Width D of a head.
  public let headWidth: Int
  /// What scores are multiplied with, usually 1/√D.
  public let scale: Double
  /// Rows that a row sees, itself included: row j ≤ i is visible when i − j < window; nil for all.
  public let window: Int?
  /// c of s ← c · tanh(s / c), applied to scores before the mask; nil for none.
  public let softcap: Double?

  /// Describes attention.
  ///
  /// - Precondition: G divides H; a window is at least 1.
  public init(heads: Int, keyValueHeads: Int, headWidth: Int, scale: Double, window: Int? = nil, softcap: Double? = nil) {
    self.heads = heads
    self.keyValueHeads = keyValueHeads
    self.headWidth = headWidth
    self.scale = scale
    self.window = window
    self.softcap = softcap
  }
}

/// Which rows of a batch see each other: the plan that attention follows, as ``Routing`` is that of the experts.
///
/// The host knows it, since the sizes of all work follow from it; the device has a copy, made once a batch.
public struct SequencePlan<B: Backend> {
  /// Where each packed sequence begins, and N at the end: S + 1 row numbers.
  public let offsets: [Int]
  /// Where each sequence's rows of k and v lie, those of q being the last of them: attention over a cache of earlier rows.
  /// Nil where k and v have the rows of q and no others.
  public let keyRows: [Range<Int>]?
  /// For kernels: offsets (S+1), then the first key row of each sequence (S), then the row behind its last (S).
  public let onDevice: Indices<B>

  /// The sequences that `offsets` cuts N rows into.
  ///
  /// - Parameter onDevice: the numbers of ``numbers(offsets:keyRows:)``, uploaded.
  /// - Precondition: `offsets` rise from 0; each sequence has at least as many keys as queries.
  public init(offsets: [Int], keyRows: [Range<Int>]? = nil, onDevice: Indices<B>) {
    guard offsets.first == 0, zip(offsets, offsets.dropFirst()).allSatisfy({ $0 <= $1 }) else { trap("SequencePlan: offsets \(offsets)") }
    if let keyRows {
      guard keyRows.count == offsets.count - 1, keyRows.indices.allSatisfy({ keyRows[$0].count >= offsets[$0 + 1] - offsets[$0] }) else {
        trap("SequencePlan: keys in rows \(keyRows) for offsets \(offsets)")
      }
    }
    guard onDevice.count == 3 * offsets.count - 2 else {
      trap("SequencePlan: \(onDevice.count) numbers on the device for \(offsets.count - 1) sequences")
    }
    self.offsets = offsets
    self.keyRows = keyRows
    self.onDevice = onDevice
  }

  /// The same, with an upload of its own.
  public init(offsets: [Int], keyRows: [Range<Int>]? = nil, on backend: B) {
    self.init(offsets: offsets, keyRows: keyRows, onDevice: backend.upload(Self.numbers(offsets: offsets, keyRows: keyRows)))
  }

  /// What ``onDevice`` holds.
  public static func numbers(offsets: [Int], keyRows: [Range<Int>]? = nil) -> [Int32] {
    let keys = keyRows ?? zip(offsets, offsets.dropFirst()).map { $0..<$1 }
    return offsets.map { Int32($0) } + keys.map { Int32($0.lowerBound) } + keys.map { Int32($0.upperBound) }
  }

  /// Number of sequences.
  public var sequences: Int { offsets.count - 1 }
  /// Number of rows N of q.
  public var rows: Int { offsets[offsets.count - 1] }
  /// The rows of q that are sequence `s`.
  public func queries(_ s: Int) -> Range<Int> { offsets[s]..<offsets[s + 1] }
  /// The rows of k and v that are sequence `s`; its last ones are those of its queries.
  public func keys(_ s: Int) -> Range<Int> { keyRows?[s] ?? queries(s) }
}

/// What a row is, so that random numbers depend neither on packing nor on micro-batches.
public struct RowIdentity<B: Backend> {
  /// The sample's number within the step: (N).
  public let samples: Indices<B>
  /// The position within the sample: (N).
  public let positions: Indices<B>
  /// The optimizer step.
  public let step: Int

  /// Names the rows of a batch.
  public init(samples: Indices<B>, positions: Indices<B>, step: Int) {
    self.samples = samples
    self.positions = positions
    self.step = step
  }
}

/// The numbers of one AdamW step.
public struct AdamWSettings: Equatable, Sendable {
  /// Learning rate lr.
  public var learningRate: Double
  /// Decay λ.
  public var weightDecay: Double
  /// Decay rate β₁ of the first moment.
  public var beta1 = 0.9
  /// Decay rate β₂ of the second moment.
  public var beta2 = 0.999
  /// ε, added to the root.
  public var epsilon = 1e-8
  /// The step t, counted from 1.
  public var step: Int

  /// torch's defaults but for what is given.
  public init(learningRate: Double, weightDecay: Double, step: Int) {
    self.learningRate = learningRate
    self.weightDecay = weightDecay
    self.step = step
  }
}

/// The numbers of one step of stochastic gradient descent.
public struct SGDSettings: Equatable, Sendable {
  /// Learning rate lr.
  public var learningRate: Double
  /// Decay λ, added to the gradient.
  public var weightDecay: Double
  /// Momentum μ.
  public var momentum: Double

  /// The given settings.
  public init(learningRate: Double, weightDecay: Double, momentum: Double) {
    self.learningRate = learningRate
    self.weightDecay = weightDecay
    self.momentum = momentum
  }
}
