import CPUBackend
import Checkpoints
import Decoders
import Platform

/// The same for people.
extension Inspection {
  /// What stands above the tables.
  var summary: String {
    var table = TextTable([kind.rawValue, presentable(path)])
    func add(_ name: String, _ value: String) { table.rows.append(["  " + presentable(name), value]) }
    let shards = (source as? ShardedCheckpoint)?.shards.count ?? 1
    add("format", format + (shards > 1 ? ", \(shards) files" : ""))
    add("tensors", "\(entries.count)")
    add("parameters", "\(parameters)")
    add("bytes", "\(entries.reduce(0) { $0 &+ $1.byteCount })")
    for member in configuration.objectValue?.members ?? [] where member.value != .null { add(member.key, member.value.excerpt) }
    if configuration != .null {
      add("unknown keys", unknownKeys.isEmpty ? "none" : unknownKeys.map { presentable($0) }.joined(separator: ", "))
    }
    return table.text
  }

  /// A line for all tensors that differ in nothing but the numbers in their names.
  var groupedTable: TextTable {
    var groups: [(first: TensorEntry, pattern: String, count: Int)] = []
    var indices: [String: Int] = [:]
    for entry in entries {
      let parts = entry.name.split(separator: ".", omittingEmptySubsequences: false)
      let pattern = parts.map { !$0.isEmpty && $0.allSatisfy { ("0"..."9").contains($0) } ? "*" : String($0) }.joined(separator: ".")
      let key = "\(pattern) \(entry.elementType) \(entry.shape)"
      if let index = indices[key] {
        groups[index].count += 1
      } else {
        indices[key] = groups.count
        groups.append((entry, pattern, 1))
      }
    }
    var table = TextTable(["tensor", "dtype", "shape", "count"], right: [3])
    for group in groups {
      let name = group.count > 1 ? group.pattern : group.first.name
      table.rows.append([
        presentable(name), group.first.elementType.rawValue, Self.shape(group.first), group.count > 1 ? "×\(group.count)" : "",
      ])
    }
    return table
  }

  /// A line for each tensor, with its statistics.
  func table(_ statistics: (TensorEntry) throws -> NumberStatistics?) throws -> TextTable {
    var table = TextTable(["tensor", "dtype", "shape", "min", "max", "mean", "norm", "nonfinite"], right: [3, 4, 5, 6, 7])
    for entry in entries {
      let found = try statistics(entry)
      let numbers = [found?.finite?.minimum, found?.finite?.maximum, found?.finite?.mean, found?.finite?.norm]
      table.rows.append(
        [presentable(entry.name), entry.elementType.rawValue, Self.shape(entry)] + numbers.map { $0.map { significant($0) } ?? "–" }
          + [found.map { "\($0.nonfinite)" } ?? "–"])
    }
    return table
  }

  /// A line for each update, with the first of its singular values.
  func updateTable(on backend: CPUDouble) throws -> TextTable {
    let shown = 6
    var table = TextTable(["update s·B·A", "s", "rank", "singular values"], right: [1, 2])
    for update in updates {
      let values = try singularValues(of: update, on: backend)
      let text =
        values.map { values in
          values.prefix(shown).map { padLeft(significant($0), 9) }.joined(separator: " ") + (values.count > shown ? " …" : "")
        } ?? "not finite"
      table.rows.append([presentable(update.path), significant(update.scale), "\(update.a.shape[0])", text])
    }
    return table
  }

  private static func shape(_ entry: TensorEntry) -> String {
    entry.shape.isEmpty ? "scalar" : entry.shape.map { "\($0)" }.joined(separator: " × ")
  }
}
