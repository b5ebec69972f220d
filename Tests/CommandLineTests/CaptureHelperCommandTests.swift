import Foundation
import Testing

@Suite struct CaptureHelperCommandTests {
  @Test(arguments: ["torch", "numpy"])
  func theFileIsPrintedAsItLiesInTheTree(_ framework: String) throws {
    let tree = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let file = try String(contentsOf: tree.appending(path: "Sources/CEmbedded/Capture/mixlora_capture_\(framework).py"), encoding: .utf8)
    let result = try Program.run(["capture-helper", framework])
    #expect(result.code == 0 && result.error.isEmpty)
    #expect(result.output == file)
    #expect(file.split(separator: "\n", omittingEmptySubsequences: false).count <= 151, "a reader takes it in whole: 150 lines")
    #expect(file.contains("class Capture") && file.contains("def save"))
  }

  @Test func anotherFrameworkIsAUsageError() throws {
    let result = try Program.run(["capture-helper", "abacus"])
    #expect(result.code == 2 && result.output.isEmpty)
    #expect(result.error.contains("abacus") && result.error.contains("torch"))
  }
}
