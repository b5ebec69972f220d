import Foundation
import Testing

/// Help and version as they were last approved; set MIXLORA_UPDATE_SNAPSHOTS=1 to approve a change.
@Suite struct HelpTests {
  static let pages = [
    ["--help"], ["--version"],
    ["demo", "--help"], ["train", "--help"], ["evaluate", "--help"], ["generate", "--help"], ["chat", "--help"], ["trace", "--help"],
    ["step", "--help"], ["explain", "--help"],
    ["tokenize", "--help"], ["convert", "--help"], ["inspect", "--help"], ["doctor", "--help"], ["bench", "--help"],
    ["bench", "train", "--help"], ["bench", "ffn", "--help"], ["bench", "ops", "--help"], ["bench", "generate", "--help"],
    ["bench", "adapters", "--help"], ["capture-helper", "--help"], ["compare", "--help"],
  ]

  @Test(arguments: pages)
  func helpIsWhatWasApproved(_ arguments: [String]) throws {
    let result = try Program.run(arguments)
    #expect(result.code == 0)
    #expect(result.error.isEmpty)
    let name = arguments.map { $0.replacing("--", with: "") }.joined(separator: "-")
    let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Snapshots/\(name).txt")
    if ProcessInfo.processInfo.environment["MIXLORA_UPDATE_SNAPSHOTS"] != nil {
      try result.output.write(to: file, atomically: true, encoding: .utf8)
    }
    #expect(try String(contentsOf: file, encoding: .utf8) == result.output)
  }
}
