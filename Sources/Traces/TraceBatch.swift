import Checkpoints
import Layers
import Tensors

/// A batch as the trace contract's file states it: B rows of T columns, with a mask and labels.
///
/// - `input_ids` I64 (B,T);
/// - `attention_mask` I64 (B,T), optional: 1 for the real tokens, one run of them in each row, or none;
/// - `labels` I64 (B,T), optional: column t counts when it and the column before are real and it is not −100.
///
/// A token's position is its column.
public struct TraceBatch: Equatable, Sendable {
  /// Rows B.
  public let rows: Int
  /// Columns T.
  public let columns: Int
  /// The real columns of each row; empty where a row has none.
  public let realColumns: [Range<Int>]
  /// Whether the file has labels.
  public let hasLabels: Bool
  private let ids: [Int64]
  private let labels: [Int64]?

  /// What a label says where nothing is asked.
  static let ignoredLabel: Int64 = -100

  /// Reads a batch and checks everything that the contract asks for.
  ///
  /// - Parameter vocabulary: V; ids and labels lie in 0..<V.
  /// - Throws: `CheckpointError` naming file, tensor, what was found and what was expected.
  public init(contentsOf file: String, vocabulary: Int) throws {
    let source = try Safetensors(path: file)
    let entry = try source.requiredEntry("input_ids")
    guard entry.shape.count == 2, entry.shape[0] > 0, entry.shape[1] > 0 else {
      throw Self.error(file, "input_ids", "shape \(entry.shape)", "(B, T) with at least one row and one column")
    }
    let (rows, columns) = (entry.shape[0], entry.shape[1])
    (self.rows, self.columns) = (rows, columns)

    func values(_ name: String) throws -> [Int64] {
      let entry = try source.requiredEntry(name)
      guard entry.elementType == .int64 else { throw Self.error(file, name, "dtype \(entry.elementType)", "I64") }
      guard entry.shape == [rows, columns] else {
        throw Self.error(file, name, "shape \(entry.shape)", "the shape of input_ids, [\(rows), \(columns)]")
      }
      return try source.int64s(of: name)
    }
    func check(_ name: String, _ values: [Int64], _ expected: String, _ isValid: (Int64) -> Bool) throws {
      guard let i = values.firstIndex(where: { !isValid($0) }) else { return }
      throw Self.error(file, name, "\(values[i]) at row \(i / columns), column \(i % columns)", expected)
    }

    ids = try values("input_ids")
    try check("input_ids", ids, "a token in 0..<\(vocabulary)") { $0 >= 0 && $0 < vocabulary }
    labels = try source.entry("labels") == nil ? nil : values("labels")
    hasLabels = labels != nil
    if let labels {
      try check("labels", labels, "a token in 0..<\(vocabulary), or \(Self.ignoredLabel)") {
        $0 == Self.ignoredLabel || ($0 >= 0 && $0 < vocabulary)
      }
    }
    let mask = try source.entry("attention_mask") == nil ? nil : values("attention_mask")
    if let mask { try check("attention_mask", mask, "0 or 1") { $0 == 0 || $0 == 1 } }
    realColumns = try (0..<rows).map { b in
      guard let mask else { return 0..<columns }
      let row = mask[b * columns..<(b + 1) * columns]
      guard let first = row.firstIndex(of: 1), let last = row.lastIndex(of: 1) else { return 0..<0 }
      guard row[first...last].allSatisfy({ $0 == 1 }) else {
        throw Self.error(file, "attention_mask", "two runs of ones in row \(b)", "one run of ones, or none")
      }
      return first - row.startIndex..<last + 1 - row.startIndex
    }
    let known: Set = ["input_ids", "attention_mask", "labels"]
    if let surplus = source.entries.first(where: { !known.contains($0.name) }) {
      throw Self.error(file, surplus.name, "a tensor that nothing reads", "input_ids, attention_mask and labels only")
    }
    if hasLabels, sequences.allSatisfy({ $0.labels.allSatisfy { $0 == nil } }) {
      throw Self.error(
        file, "labels", "no column that counts", "a label that is not \(Self.ignoredLabel) after a real column, in a real column")
    }
  }

  /// The rows as sequences of real tokens; row t of a sequence predicts the label of the column after it.
  public var sequences: [PackedSequence] {
    realColumns.enumerated().map { b, real in
      PackedSequence(
        ids: real.map { Int32(ids[b * columns + $0]) }, firstPosition: real.lowerBound,
        labels: real.map { t in
          guard let labels, t + 1 < real.upperBound, labels[b * columns + t + 1] != Self.ignoredLabel else { return nil }
          return Int32(labels[b * columns + t + 1])
        })
    }
  }

  /// The place b · T + t of each packed token.
  var places: [Int] { realColumns.enumerated().flatMap { b, real in real.map { b * columns + $0 } } }

  /// Rows of packed tokens (N·W values) at their places among B·T rows, zeros at padding.
  func unpacked<T: BinaryFloatingPoint>(_ values: [T], width: Int) -> [T] {
    var out = [T](repeating: 0, count: rows * columns * width)
    var n = 0
    for (b, real) in realColumns.enumerated() {
      let start = (b * columns + real.lowerBound) * width
      let length = real.count * width
      out.replaceSubrange(start..<start + length, with: values[n..<n + length])
      n += length
    }
    return out
  }

  private static func error(_ file: String, _ tensor: String, _ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: .tensor(tensor), found: found, expected: expected)
  }
}
