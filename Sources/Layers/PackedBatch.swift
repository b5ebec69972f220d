import Tensors

/// A batch without padding: the real tokens of all samples, one after the other.
///
/// N tokens in S sequences. Everything that a layer may need to know about a row is here.
public struct PackedBatch<B: Backend> {
  /// Token ids: (N).
  public let ids: Indices<B>
  /// Position of each token in its sample: (N). A sample may begin later than at 0.
  public let positions: Indices<B>
  /// The largest position and one more: positions are below it.
  public let positionLimit: Int
  /// Number of each token's sample within the step: (N).
  public let samples: Indices<B>
  /// Where each sequence begins, and N at the end: S + 1 row numbers, on the host.
  public let offsets: [Int]
  /// Which rows predict which label.
  public let labels: Labels<B>

  /// Number of tokens N.
  public var tokens: Int { ids.count }

  /// Packs the sequences and uploads them. `firstSample` numbers the first of them where they are a part of a step's samples.
  public init(_ sequences: [PackedSequence], firstSample: Int = 0, on backend: B) {
    var ids: [Int32] = []
    var positions: [Int32] = []
    var samples: [Int32] = []
    var offsets = [0]
    var labelRows: [Int32] = []
    var labels: [Int32] = []
    for (s, sequence) in sequences.enumerated() {
      guard sequence.labels.count == sequence.ids.count else {
        trap("PackedBatch: \(sequence.ids.count) tokens, \(sequence.labels.count) labels")
      }
      for (t, label) in sequence.labels.enumerated() {
        guard let label else { continue }
        labelRows.append(Int32(ids.count + t))
        labels.append(label)
      }
      ids += sequence.ids
      positions += sequence.ids.indices.map { Int32(sequence.firstPosition + $0) }
      samples += repeatElement(Int32(firstSample + s), count: sequence.ids.count)
      offsets.append(ids.count)
    }
    self.ids = backend.upload(ids)
    self.positions = backend.upload(positions)
    positionLimit = sequences.map { $0.ids.isEmpty ? 0 : $0.firstPosition + $0.ids.count }.max() ?? 0
    self.samples = backend.upload(samples)
    self.offsets = offsets
    self.labels = Labels(rows: labelRows, labels: labels, on: backend)
  }

  /// What random masks know of the rows at optimiser step `step`.
  public func identity(step: Int) -> RowIdentity<B> { RowIdentity(samples: samples, positions: positions, step: step) }
}

/// One sequence of a batch, on the host.
public struct PackedSequence: Equatable, Sendable {
  /// Token ids.
  public var ids: [Int32]
  /// Position of the first token.
  public var firstPosition: Int
  /// For each token what it should predict, nil where nothing is asked.
  public var labels: [Int32?]

  /// A sequence; `labels[t]` is the label that token t predicts (already shifted).
  public init(ids: [Int32], firstPosition: Int = 0, labels: [Int32?]) {
    self.ids = ids
    self.firstPosition = firstPosition
    self.labels = labels
  }
}
