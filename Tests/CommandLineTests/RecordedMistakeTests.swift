import Checkpoints
import Foundation
import Testing

/// Runs of a PyTorch candidate, with a planted mistake and without: Fixtures/compare says how they were recorded.
@Suite struct RecordedMistakeTests {
  /// A record, and what is to be found in it.
  struct Record: Sendable, CustomTestStringConvertible {
    let name: String
    let first, cause: [String]
    let arguments: [String]
    var testDescription: String { name }
  }

  static let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "Fixtures/compare/recorded")

  static func records(_ index: String) throws -> [Record] {
    let file = folder.appending(path: index)
    return try JSON(parsing: String(contentsOf: file, encoding: .utf8), file: index).arrayValue!.map { record in
      func text(_ key: String) -> String { record[key]!.stringValue! }
      func texts(_ key: String) -> [String] { record[key]!.arrayValue!.map { $0.stringValue! } }
      func place(_ key: String) -> String { folder.appending(path: text(key)).path }
      return Record(
        name: text("name"), first: texts("first"), cause: texts("cause"),
        arguments: [
          "compare", "--model", place("model"), "--adapter", place("adapter"), "--batch", place("batch"), place("file"), "--json",
          "--quiet",
          "--threads", "1",
        ])
    }
  }

  /// The exit code and the last line.
  static func compare(_ record: Record) throws -> (code: Int32, last: JSON) {
    let result = try Program.run(record.arguments)
    let last = try #require(result.output.split(separator: "\n").last, "\(record.name): \(result.error)")
    return (result.code, try JSON(parsing: String(last), file: record.name))
  }

  @Test(arguments: try records("bugs.json"))
  func aMistakeIsFoundWhereItIs(_ record: Record) throws {
    let (code, last) = try Self.compare(record)
    #expect(code == 1 && last["verdict"] == "mismatch")
    let first = last["first"]?.stringValue ?? ""
    #expect(record.first.contains { fnmatch($0, first, 0) == 0 }, "\(first) is none of \(record.first)")
  }

  @Test func mostMistakesAreCalledByTheirName() throws {
    let records = try Self.records("bugs.json")
    let wrong = try records.filter { record in
      let name = try Self.compare(record).last["cause_details"]?.arrayValue?.first?["name"]?.stringValue
      return !record.cause.contains(name ?? "other")
    }
    #expect(records.count >= 25 && wrong.count * 5 <= records.count, "\(wrong.map(\.name))")
  }

  @Test(arguments: try records("clean.json"))
  func aCleanRunIsRight(_ record: Record) throws {
    let (code, last) = try Self.compare(record)
    #expect(code == 0 && last["verdict"] == "match", "\(last)")
    #expect(last["compared"]?.intValue ?? 0 > 20)
  }
}
