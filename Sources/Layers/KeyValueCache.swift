import Tensors

/// The rotated keys and the values of the rows that one attention layer has seen: what decoding must not form again.
///
/// Some sequences, each with its own range of P rows, G·D columns. A forward pass adds the rows of its batch behind the earlier ones of
/// the same sequence, and its queries then see them all:
///
///     keys, values   (sequences·P,G·D)      sequence s has rows s·P ..< s·P + lengths[s]
///
/// Where rows lie is the same in every layer: ``CacheSlots`` knows it on the host, ``CachePlacement`` on the device, once a pass.
/// A layer with a window keeps all rows and reads those within it.
///
/// A class, as every forward pass adds to it in place.
public final class KeyValueCache<B: Backend> {
  private var rows: (keys: Tensor<B>, values: Tensor<B>)?  // (sequences·P,G·D) each

  /// Nothing yet.
  public init() {}

  /// Adds the rows of the batch, keys and values (N,G·D), and gives all that are kept: (sequences·P,G·D) each.
  ///
  /// - Precondition: the batch was made with the slots that this cache's rows follow.
  func append(keys: Tensor<B>, values: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> (keys: Tensor<B>, values: Tensor<B>) {
    guard let placement = batch.placement else { trap("KeyValueCache: the batch joins no earlier rows") }
    var (allKeys, allValues) = (room(placement, rows?.keys, keys.columnCount, run), room(placement, rows?.values, values.columnCount, run))
    rows = nil  // the storage is ours alone while it is written
    run.backend.copy(keys, into: &allKeys, rows: placement.places)
    run.backend.copy(values, into: &allValues, rows: placement.places)
    rows = (allKeys, allValues)
    return (allKeys, allValues)
  }

  /// What is kept, moved where there is not room enough.
  private func room(_ placement: CachePlacement<B>, _ x: Tensor<B>?, _ columns: Int, _ run: Run<B>) -> Tensor<B> {
    if let x, x.rowCount == placement.rows { return x }
    var y = run.backend.empty(Shape(placement.rows, columns))
    if let x { run.backend.copy(run.backend.gather(x, rows: placement.from), into: &y, rows: placement.to) }
    return y
  }
}

/// Where the rows of the sequences lie in every layer's ``KeyValueCache``.
///
/// P, the rows that a sequence has room for, doubles when one outgrows it, so that a row is moved once or twice on the average, however
/// long the text becomes.
public struct CacheSlots: Sendable {
  /// How many rows of each sequence are kept.
  public private(set) var lengths: [Int]
  private var size = 0
  private var moved: [Range<Int>] = []  // where the rows lay, if the slots grow with the next pass

  /// Nothing yet, for `sequences` sequences.
  public init(sequences: Int) { lengths = [Int](repeating: 0, count: sequences) }

  /// All rows: sequences·P.
  var rows: Int { lengths.count * size }

  /// Makes room for so many more rows of each sequence: before the batch with them is made.
  ///
  /// - Precondition: `new` has a number for every sequence.
  public mutating func reserve(_ new: [Int]) {
    guard new.count == lengths.count else { trap("CacheSlots: rows of \(new.count) sequences, expected \(lengths.count)") }
    moved = []
    let longest = zip(lengths, new).map(+).max() ?? 0
    guard longest > size else { return }
    moved = lengths.enumerated().map { $0 * size..<$0 * size + $1 }
    size = max(longest, 2 * size, 64)
  }

  /// Counts the rows that a pass added.
  ///
  /// - Precondition: room was reserved for them.
  public mutating func add(_ new: [Int]) { lengths = zip(lengths, new).map(+) }

  /// Forgets the rows of a sequence from `length` on.
  public mutating func truncate(_ sequence: Int, to length: Int) { lengths[sequence] = min(lengths[sequence], length) }

  /// Where each sequence's rows lie when `new` more are there.
  func keyRows(adding new: [Int]) -> [Range<Int>] { lengths.indices.map { $0 * size..<$0 * size + lengths[$0] + new[$0] } }

  /// The place of each row of a batch, and, where the slots have grown, where the rows that are kept lay before and lie now.
  func numbers(offsets: [Int]) -> (places: [Int32], from: [Int32], to: [Int32]) {
    let places = lengths.indices.flatMap { s in (0..<offsets[s + 1] - offsets[s]).map { Int32(s * size + lengths[s] + $0) } }
    let to = moved.isEmpty ? [] : lengths.indices.flatMap { s in (0..<lengths[s]).map { Int32(s * size + $0) } }
    return (places, moved.flatMap { $0.map { Int32($0) } }, to)
  }
}

/// ``CacheSlots`` as kernels need them for one batch.
public struct CachePlacement<B: Backend> {
  /// Rows in all: sequences·P.
  let rows: Int
  /// Where each row of the batch goes: (N).
  let places: Indices<B>
  /// Where the kept rows lay before.
  let from: Indices<B>
  /// Where they lie now.
  let to: Indices<B>
}
