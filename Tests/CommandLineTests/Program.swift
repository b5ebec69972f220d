import Foundation
import Testing

/// The built program, run as its users run it.
enum Program {
  struct Result {
    let code: Int32
    let output: String
    let error: String
  }

  /// `mixlora` beside the test bundle.
  static let url: URL = {
    var folder = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent()
    while folder.path != "/", !FileManager.default.isExecutableFile(atPath: folder.appending(path: "mixlora").path) {
      folder = folder.deletingLastPathComponent()
    }
    return folder.appending(path: "mixlora")
  }()

  /// Runs it, or another program, to its end.
  static func run(_ arguments: [String], in folder: URL? = nil, input: String? = nil, program: String? = nil) throws -> Result {
    let process = Process()
    process.executableURL = program.map { URL(filePath: $0) } ?? url
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(["COLUMNS": "80"]) { $1 }
    if let folder { process.currentDirectoryURL = folder }
    let scratch = try Scratch()
    let (out, err) = (scratch.url.appending(path: "out"), scratch.url.appending(path: "err"))
    for file in [out, err] { try Data().write(to: file) }
    process.standardOutput = try FileHandle(forWritingTo: out)
    process.standardError = try FileHandle(forWritingTo: err)
    if let input {
      let file = scratch.url.appending(path: "in")
      try Data(input.utf8).write(to: file)
      process.standardInput = try FileHandle(forReadingFrom: file)
    } else {
      process.standardInput = FileHandle.nullDevice
    }
    try process.run()
    process.waitUntilExit()
    return Result(
      code: process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus,
      output: String(decoding: try Data(contentsOf: out), as: UTF8.self), error: String(decoding: try Data(contentsOf: err), as: UTF8.self))
  }
}

/// A folder of its own for one test, removed at the end.
final class Scratch {
  let url: URL

  init() throws {
    url = FileManager.default.temporaryDirectory.appending(path: "mixlora-" + UUID().uuidString)
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  /// Copies a golden case here.
  func golden(_ name: String, file: String = #filePath) throws -> URL {
    let root = URL(filePath: file).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let copy = url.appending(path: name)
    try FileManager.default.copyItem(at: root.appending(path: "Fixtures/golden/\(name)"), to: copy)
    return copy
  }

  /// The folder of a small tokenizer.
  static func tokenizer(_ name: String, file: String = #filePath) -> String {
    let root = URL(filePath: file).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    return root.appending(path: "Fixtures/tokenizers/\(name)").path
  }

  /// Replaces text in a file, once.
  func edit(_ file: URL, _ old: String, _ new: String) throws {
    let text = try String(contentsOf: file, encoding: .utf8)
    #expect(text.contains(old), "\(file.lastPathComponent) has no \(old)")
    try text.replacing(old, with: new, maxReplacements: 1).write(to: file, atomically: true, encoding: .utf8)
  }
}
