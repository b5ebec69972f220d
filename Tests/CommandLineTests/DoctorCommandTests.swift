import Checkpoints
import Foundation
import Testing

@Suite struct DoctorCommandTests {
  @Test func everyCheckIsALineAndNoneFailsHere() throws {
    let result = try Program.run(["doctor", "--json"])
    #expect(result.code == 0 && result.error.isEmpty, "\(result.output) \(result.error)")
    let lines = try result.output.split(separator: "\n").map { try JSON(parsing: String($0), file: "output") }
    #expect(
      lines.compactMap { $0["check"]?.stringValue } == [
        "version", "system", "processor", "cores", "memory", "current folder", "temporary folder", "OpenBLAS", "speed",
        "operations in float64", "operations in float32", "float32 against float64", "gradient of a model", "LAPACK",
      ])
    for line in lines {
      #expect(line.objectValue?.keys == ["check", "status", "detail"] && line["status"] == "ok", "\(line)")
      #expect(line["detail"]?.stringValue?.isEmpty == false)
    }
    func detail(_ check: String) -> String { lines.first { $0["check"]?.stringValue == check }?["detail"]?.stringValue ?? "" }
    #expect(detail("version").hasPrefix("mixlora "))
    #expect(detail("current folder").hasPrefix(". can be written to"))
    #expect(detail("speed").contains("GFLOP/s in float32"))
    #expect(
      Int(detail("float32 against float64").split(separator: " ").first ?? "") ?? 0 > 0 && detail("gradient of a model").contains("limit"))
    let operations = lines.filter { $0["check"]?.stringValue?.hasPrefix("operations in") == true }
    let counts = operations.compactMap { Int($0["detail"]?.stringValue?.split(separator: " ").first ?? "") }
    #expect(counts.count == 2 && counts.allSatisfy { $0 >= 48 }, "a case of every operation at least: \(counts)")
  }

  #if os(Linux)
    @Test func aFolderThatCannotBeWrittenToFailsByName() throws {
      let result = try Program.run(["doctor", "--threads", "1"], in: URL(filePath: "/proc"))
      #expect(result.code == 1 && result.output.contains("✗ current folder") && result.output.contains("1 failed"), "\(result.output)")
      #expect(!result.output.contains("\u{1b}"), "colors belong to terminals")
    }
  #endif
}
