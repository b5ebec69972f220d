import CMixLoRA
import Foundation
import JSON

/// A handle that a call gave, given back with the last who has it.
class Handle {
  struct Refused: Error, CustomStringConvertible {
    let description: String
  }

  let number: mixlora_handle

  init(_ call: (UnsafeMutablePointer<mixlora_handle>) -> mixlora_handle) throws {
    var error: mixlora_handle = 0
    number = call(&error)
    guard number != 0 else {
      defer { mixlora_release(error) }
      throw Refused(description: mixlora_text(error).map { String(cString: $0) } ?? "no text")
    }
  }

  deinit { mixlora_release(number) }

  var text: String { mixlora_text(number).map { String(cString: $0) } ?? "no text" }
  var json: JSON { get throws { try JSON(parsing: text, file: "text") } }
}

/// A handle of numbers.
final class ArrayHandle: Handle {
  private(set) var array = mixlora_array()

  init(_ call: (UnsafeMutablePointer<mixlora_array>, UnsafeMutablePointer<mixlora_handle>) -> mixlora_handle) throws {
    var array = mixlora_array()
    try super.init { call(&array, $0) }
    self.array = array
  }

  var shape: [Int] { (0..<Int(array.axes)).map { Int(array.shape[$0]) } }
  var bytes: [UInt8] { Array(UnsafeRawBufferPointer(start: array.data, count: shape.reduce(Int(array.size), *))) }
}

/// The message of a call that must fail.
func message(_ call: (UnsafeMutablePointer<mixlora_handle>?) -> mixlora_handle) -> String {
  do { _ = try Handle { call($0) } } catch { return "\(error)" }
  return "no error"
}

/// A place for what nobody reads.
enum Scrap {
  nonisolated(unsafe) static let array = UnsafeMutablePointer<mixlora_array>.allocate(capacity: 1)
}

extension JSON {
  /// The object with another member.
  func with(_ key: String, _ value: JSON) -> JSON {
    var object = objectValue ?? .init()
    object[key] = value
    return .object(object)
  }
}

/// A folder that is there for one test.
final class Scratch {
  let path: String

  init() throws {
    let url = FileManager.default.temporaryDirectory.appending(path: "mixlora-c-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    path = url.path
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// The demo's base model, out of the library, and some questions.
  func demo() throws -> (model: String, data: String) {
    try FileManager.default.createDirectory(atPath: path + "/base", withIntermediateDirectories: true)
    for name in ["base/config.json", "base/tokenizer.json", "base/model.safetensors"] {
      let file = try ArrayHandle { mixlora_file(name, $0, $1) }
      try Data(file.bytes).write(to: URL(filePath: "\(path)/\(name)"))
    }
    let lines = "abcdefgh".map { "{\"prompt\": \"swap: \($0) x ->\", \"completion\": \" x \($0)\"}\n" }
    try Data(lines.joined().utf8).write(to: URL(filePath: path + "/data.jsonl"))
    return (path + "/base", path + "/data.jsonl")
  }
}
