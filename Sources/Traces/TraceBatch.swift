import Checkpoints
import Decoders
import Layers
import Tensors

/// A batch as the trace contract's file states it: B rows of T columns, with a mask and labels.
///
/// - `input_ids` I64 (B,T);
/// - `attention_mask` I64 (B,T), optional: 1 for the real tokens, one run of them in each row, or none;
/// - `labels` I64 (B,T), optional: column t counts when it and the column before are real and it is not −100;
/// - `adapter` I64 (B), optional: the number of the adapter that serves a row, −1 for the base alone; absent: 0.
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
  /// The adapter of each row; nil for the base alone.
  public private(set) var adapters: [Int?]
  private let ids: [Int64]
  private let labels: [Int64]?

  /// A tensor of the batch by its name in the file, padding as the file has it; what was left out there is what stands for it. nil for
  /// another name, and for labels where there are none.
  public func tensor(_ name: String) -> (shape: [Int], values: [Int64])? {
    switch name {
    case "input_ids": return ([rows, columns], ids)
    case "attention_mask": return ([rows, columns], realColumns.flatMap { real in (0..<columns).map { real.contains($0) ? 1 : 0 } })
    case "labels": return labels.map { ([rows, columns], $0) }
    case "adapter": return ([rows], adapters.map { Int64($0 ?? -1) })
    default: return nil
    }
  }

  /// The same batch with other rows for the adapters.
  package func serving(_ adapters: [Int?]) -> TraceBatch {
    var batch = self
    batch.adapters = adapters
    return batch
  }

  /// A batch of token ids, each row padded behind its end; every token from `firstCounted` on counts, and the row's first never does.
  ///
  /// - Precondition: there is a token, and the ids are in the model's vocabulary.
  public init(_ samples: [(ids: [Int32], firstCounted: Int)]) {
    let width = samples.map(\.ids.count).max() ?? 0
    (rows, columns) = (samples.count, width)
    realColumns = samples.map { 0..<$0.ids.count }
    hasLabels = true
    adapters = samples.map { _ in 0 }
    func row(_ values: [Int64]) -> [Int64] { values + Array(repeating: 0, count: width - values.count) }
    ids = samples.flatMap { row($0.ids.map { Int64($0) }) }
    labels = samples.flatMap { sample in
      row(sample.ids.enumerated().map { $0 >= sample.firstCounted ? Int64($1) : PackedSequence.ignoredLabel })
    }
  }

  /// Reads a batch and checks everything that the contract asks for.
  ///
  /// - Parameters:
  ///   - vocabulary: V; ids and labels lie in 0..<V.
  ///   - count: adapters of the model; without one all rows are the base's.
  /// - Throws: `CheckpointError` naming file, tensor, what was found and what was expected.
  public init(contentsOf file: String, vocabulary: Int, adapters count: Int = 1) throws {
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
      try check("labels", labels, "a token in 0..<\(vocabulary), or \(PackedSequence.ignoredLabel)") {
        $0 == PackedSequence.ignoredLabel || ($0 >= 0 && $0 < vocabulary)
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
    self.adapters = try Self.adapters(source, file, rows: rows, adapters: max(1, count)).map { count == 0 ? 0 : $0 }
    let known: Set = ["input_ids", "attention_mask", "labels", "adapter"]
    if let surplus = source.entries.first(where: { !known.contains($0.name) }) {
      throw Self.error(file, surplus.name, "a tensor that nothing reads", "input_ids, attention_mask, labels and adapter only")
    }
    if hasLabels, sequences.allSatisfy({ $0.labels.allSatisfy { $0 == nil } }) {
      throw Self.error(
        file, "labels", "no column that counts", "a label that is not \(PackedSequence.ignoredLabel) after a real column, in a real column")
    }
  }

  /// The rows as sequences of real tokens; row t of a sequence predicts the label of the column after it.
  public var sequences: [PackedSequence] {
    realColumns.enumerated().map { b, real in
      PackedSequence(
        ids: real.map { Int32(ids[b * columns + $0]) }, firstPosition: real.lowerBound,
        labels: real.map { t in
          guard let labels, t + 1 < real.upperBound, labels[b * columns + t + 1] != PackedSequence.ignoredLabel else { return nil }
          return Int32(labels[b * columns + t + 1])
        }, adapter: adapters[b])
    }
  }

  /// The place b · T + t of each packed token, of a batch that packed the rows in this order.
  package func places(_ order: [Int]) -> [Int] { order.flatMap { b in realColumns[b].map { b * columns + $0 } } }

  /// Rows of packed tokens (n·W values) at their places among B·T rows, zeros elsewhere.
  package func unpacked<T: BinaryFloatingPoint>(_ values: [T], width: Int, _ places: some Collection<Int>) -> [T] {
    guard values.count == places.count * width else { trap("\(values.count) values for \(places.count) rows of \(width)") }
    var out = [T](repeating: 0, count: rows * columns * width)
    for (n, place) in places.enumerated() {
      out.replaceSubrange(place * width..<(place + 1) * width, with: values[n * width..<(n + 1) * width])
    }
    return out
  }

  private static func adapters(_ source: some TensorSource, _ file: String, rows: Int, adapters count: Int) throws -> [Int?] {
    guard let entry = source.entry("adapter") else { return Array(repeating: 0, count: rows) }
    guard entry.elementType == .int64, entry.shape == [rows] else {
      throw error(file, "adapter", "\(entry.elementType) \(entry.shape)", "I64 [\(rows)], a number for each row of input_ids")
    }
    return try source.int64s(of: "adapter").enumerated().map { row, number in
      guard (-1..<Int64(count)).contains(number) else {
        throw error(file, "adapter", "\(number) at row \(row)", count == 1 ? "0, or -1 for the base alone" : "-1 to \(count - 1)")
      }
      return number < 0 ? nil : Int(number)
    }
  }

  private static func error(_ file: String, _ tensor: String, _ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: .tensor(tensor), found: found, expected: expected)
  }
}

extension Decoder {
  /// Refuses rows of the base alone beside an adapter that brings its own of the base's weights.
  ///
  /// - Throws: `CheckpointError` naming the batch's file.
  public func requireRows(of batch: TraceBatch, _ file: String) throws {
    guard batch.adapters.contains(nil), adapters.contains(where: \.configuration.replacesBase) else { return }
    throw CheckpointError(
      file: file, place: .tensor("adapter"), found: "-1, rows of the base alone",
      expected: "rows of the adapter, which brings weights in the place of the base's")
  }
}
