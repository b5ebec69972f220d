import Tensors

/// The rotated keys and the values of the rows that one attention layer has seen: what decoding must not form again.
///
/// S sequences, each with its own range of rows, G·D columns. A forward pass adds the rows of its batch behind the earlier ones of
/// the same sequence, and its queries then see them all:
///
///     keys, values   (S·P,G·D)      sequence s has rows s·P ..< s·P + lengths[s]
///
/// P doubles when a sequence outgrows it, so that a row is moved about twice, however long the text becomes. A layer with a window
/// keeps all rows and reads those within it.
///
/// A class, as every forward pass adds to it in place.
public final class KeyValueCache<B: Backend> {
  /// How many rows of each sequence are kept.
  public private(set) var lengths: [Int]
  private var capacity = 0
  private var rows: (keys: Tensor<B>, values: Tensor<B>)?  // (S·P,G·D) each

  /// Nothing yet, for `sequences` sequences.
  public init(sequences: Int) { lengths = [Int](repeating: 0, count: sequences) }

  /// Forgets the rows of a sequence from `length` on.
  public func truncate(_ sequence: Int, to length: Int) { lengths[sequence] = min(lengths[sequence], length) }

  /// Adds the rows of a batch, keys and values (N,G·D) of the sequences that `offsets` cuts, behind those of the same sequences.
  ///
  /// - Returns: all keys and values, and where each sequence's rows lie in them.
  package func append(keys: Tensor<B>, values: Tensor<B>, offsets: [Int], _ run: Run<B>) -> (
    keys: Tensor<B>, values: Tensor<B>, rows: [Range<Int>]
  ) {
    guard offsets.count == lengths.count + 1 else { trap("KeyValueCache: \(offsets.count - 1) sequences, expected \(lengths.count)") }
    let new = lengths.indices.map { offsets[$0 + 1] - offsets[$0] }
    var (allKeys, allValues) = room(for: zip(lengths, new).map(+).max() ?? 0, columns: keys.columnCount, run)
    rows = nil  // the storage is ours alone while it is written
    for (s, count) in new.enumerated() where count > 0 {
      let begin = s * capacity + lengths[s]
      let source = offsets[s]..<offsets[s + 1]
      run.backend.copy(keys.rows(source), into: &allKeys, rows: begin..<begin + count, columns: nil)
      run.backend.copy(values.rows(source), into: &allValues, rows: begin..<begin + count, columns: nil)
      lengths[s] += count
    }
    rows = (allKeys, allValues)
    return (allKeys, allValues, lengths.indices.map { $0 * capacity..<$0 * capacity + lengths[$0] })
  }

  /// Tensors with room for `length` rows of each sequence, with the rows that are kept.
  private func room(for length: Int, columns: Int, _ run: Run<B>) -> (Tensor<B>, Tensor<B>) {
    if let rows, length <= capacity { return rows }
    let larger = max(length, 2 * capacity, 64)
    func moved(_ x: Tensor<B>?) -> Tensor<B> {
      var y = run.backend.empty(Shape(lengths.count * larger, columns))
      guard let x else { return y }
      for (s, count) in lengths.enumerated() where count > 0 {
        run.backend.copy(x.rows(s * capacity..<s * capacity + count), into: &y, rows: s * larger..<s * larger + count, columns: nil)
      }
      return y
    }
    let result = (moved(rows?.keys), moved(rows?.values))
    capacity = larger
    return result
  }
}
