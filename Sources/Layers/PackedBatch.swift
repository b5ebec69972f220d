import Tensors

/// A batch without padding: the real tokens of all samples, one after the other, those of each adapter together.
///
/// N tokens of some sequences. Everything that a layer may need to know about a row is here; it comes to the device in one piece.
public struct PackedBatch<B: Backend> {
  /// Token ids: (N).
  public let ids: Indices<B>
  /// Position of each token in its sample: (N). A sample may begin later than at 0.
  public let positions: Indices<B>
  /// The largest position and one more: positions are below it. Of a batch with padding, its columns.
  public let positionLimit: Int
  /// Which rows see each other.
  public let plan: SequencePlan<B>
  /// For each packed sequence its number among those that were given: they are ordered by adapter, else as given.
  public let order: [Int]
  /// Where the rows go that join those of earlier passes; nil where there are none.
  public let placement: CachePlacement<B>?
  private let samples: Indices<B>
  private let groups: [(rows: Range<Int>, labels: Labels<B>)]

  /// Number of tokens N.
  public var tokens: Int { ids.count }

  /// Packs the sequences and uploads them.
  ///
  /// - Parameters:
  ///   - firstSamples: the number of each adapter's first sample, where these are a part of a step's samples; 0 where it has none.
  ///   - columns: how many columns the sequences were cut out of, where padding has positions too; nil for those of the sequences.
  ///   - slots: where the rows of earlier passes lie, which those of the batch join, sequence by sequence.
  /// - Precondition: each sequence has as many labels as tokens. With `slots`, room was reserved for the sequences, and they are
  ///   given in the order of their adapters, in which they then stay.
  /// - Complexity: O(N) on the host, and one upload.
  public init(
    _ sequences: [PackedSequence], firstSamples: [Int] = [], columns: Int? = nil, joining slots: CacheSlots? = nil, on backend: B
  ) {
    let adapters = max(1, sequences.reduce(0) { max($0, ($1.adapter ?? -1) + 1) })
    order = sequences.indices.sorted { (sequences[$0].adapter ?? adapters, $0) < (sequences[$1].adapter ?? adapters, $1) }
    var (ids, positions, samples, offsets): ([Int32], [Int32], [Int32], [Int]) = ([], [], [], [0])
    var bounds = [Range<Int>](repeating: 0..<0, count: adapters)
    var labeled = [(rows: [Int32], labels: [Int32])](repeating: ([], []), count: adapters)
    var counts = (0...adapters).map { $0 < firstSamples.count ? firstSamples[$0] : 0 }
    for number in order {
      let (sequence, begin) = (sequences[number], ids.count)
      guard sequence.labels.count == sequence.ids.count else {
        trap("PackedBatch: \(sequence.ids.count) tokens, \(sequence.labels.count) labels")
      }
      if let adapter = sequence.adapter {
        let isFirst = bounds[adapter].isEmpty
        bounds[adapter] = (isFirst ? begin : bounds[adapter].lowerBound)..<begin + sequence.ids.count
        for (t, label) in sequence.labels.enumerated() {
          guard let label else { continue }
          labeled[adapter].rows.append(Int32(begin + t))
          labeled[adapter].labels.append(label)
        }
      }
      ids += sequence.ids
      positions += sequence.ids.indices.map { Int32(sequence.firstPosition + $0) }
      samples += repeatElement(Int32(counts[sequence.adapter ?? adapters]), count: sequence.ids.count)
      counts[sequence.adapter ?? adapters] += 1
      offsets.append(ids.count)
    }
    positionLimit = max(columns ?? 0, sequences.map { $0.ids.isEmpty ? 0 : $0.firstPosition + $0.ids.count }.max() ?? 0)

    let keyRows = slots?.keyRows(adding: zip(offsets, offsets.dropFirst()).map { $1 - $0 })
    let planNumbers = SequencePlan<B>.numbers(offsets: offsets, keyRows: keyRows)
    let placed = slots?.numbers(offsets: offsets)
    let parts =
      [ids, positions, samples, planNumbers] + labeled.flatMap { [$0.rows, $0.labels] }
      + (placed.map { [$0.places, $0.from, $0.to] } ?? [])
    let all = backend.upload(Array(parts.joined()))
    var end = 0
    let on = parts.map { part in
      end += part.count
      return all[end - part.count..<end]
    }
    (self.ids, self.positions, self.samples) = (on[0], on[1], on[2])
    plan = SequencePlan(offsets: offsets, keyRows: keyRows, onDevice: on[3])
    groups = (0..<adapters).map { (bounds[$0], Labels(rows: on[4 + 2 * $0], labels: on[5 + 2 * $0])) }
    placement = slots.map { slots in
      let first = 4 + 2 * adapters
      return CachePlacement(rows: slots.rows, places: on[first], from: on[first + 1], to: on[first + 2])
    }
  }

  /// The rows of an adapter; empty where the batch has none.
  public func rows(of adapter: Int) -> Range<Int> { adapter < groups.count ? groups[adapter].rows : 0..<0 }

  /// The rows of no adapter, behind all others.
  public var baseRows: Range<Int> { (groups.map(\.rows.upperBound).max() ?? 0)..<tokens }

  /// Which of an adapter's rows predict which label; rows of no adapter predict none.
  public func labels(of adapter: Int) -> Labels<B> {
    adapter < groups.count ? groups[adapter].labels : Labels(rows: ids[0..<0], labels: ids[0..<0])
  }

  /// What random masks know of an adapter's rows at optimizer step `step`.
  public func identity(of adapter: Int, step: Int) -> RowIdentity<B> {
    RowIdentity(samples: samples[rows(of: adapter)], positions: positions[rows(of: adapter)], step: step)
  }
}

/// One sequence of a batch, on the host.
public struct PackedSequence: Equatable, Sendable {
  /// Token ids.
  public var ids: [Int32]
  /// Position of the first token.
  public var firstPosition: Int
  /// For each token what it should predict, nil where nothing is asked.
  public var labels: [Int32?]
  /// The number of the adapter that serves it; nil for the base alone.
  public var adapter: Int?

  /// What a label says in a file where nothing is asked, as PyTorch's cross-entropy has it.
  public static let ignoredLabel: Int64 = -100

  /// A sequence; `labels[t]` is the label that token t predicts (already shifted).
  public init(ids: [Int32], firstPosition: Int = 0, labels: [Int32?], adapter: Int? = 0) {
    self.ids = ids
    self.firstPosition = firstPosition
    self.labels = labels
    self.adapter = adapter
  }
}

extension PackedSequence {
  /// The same sequence under another adapter; nil for the base alone.
  public func serving(_ adapter: Int?) -> PackedSequence {
    var sequence = self
    sequence.adapter = adapter
    return sequence
  }
}

/// Which rows predict a label.
public struct Labels<B: Backend> {
  /// The rows of the batch that predict: (n).
  public let rows: Indices<B>
  /// What they should predict: (n).
  public let labels: Indices<B>

  /// Their number n.
  public var count: Int { rows.count }

  /// Parts of at most `size` rows, in order.
  func chunks(of size: Int) -> [Labels] {
    stride(from: 0, to: count, by: size).map { start in
      let range = start..<min(start + size, count)
      return Labels(rows: rows[range], labels: labels[range])
    }
  }
}
