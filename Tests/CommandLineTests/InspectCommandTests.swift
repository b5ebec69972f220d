import Checkpoints
import Foundation
import HostileCases
import Testing

/// `mixlora inspect` on every kind of input, against NumPy (`Fixtures/inspect`).
@Suite struct InspectCommandTests {
  static let fixtures = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "Fixtures").path
  static let expected = (try? JSON(contentsOf: fixtures + "/inspect/expected.json")) ?? nil

  private func lines(_ path: String, _ options: String...) throws -> [JSON] {
    let result = try Program.run(["inspect", Self.fixtures + "/" + path, "--json"] + options)
    #expect(result.code == 0 && result.error.isEmpty, "\(result.error)")
    #expect(!result.output.contains(":nan") && !result.output.contains("inf,"))
    return try result.output.split(separator: "\n").map { try JSON(parsing: String($0), file: "output") }
  }

  /// Equal to 1e-13, the size of the number being the scale; null only to null.
  private func agree(_ a: JSON?, _ b: JSON?) -> Bool {
    guard let x = a?.doubleValue, let y = b?.doubleValue else { return a == .null && b == .null }
    return abs(x - y) <= 1e-13 * max(abs(x), abs(y)) || x == y
  }

  @Test(arguments: [("inspect/numbers.safetensors", "numbers"), ("gguf/blocks.gguf", "blocks")])
  func statisticsAreNumPys(_ path: String, _ key: String) throws {
    let expected = try #require(Self.expected[key]?.objectValue)
    for threads in ["1", "3"] {
      let lines = try lines(path, "--stats", "--threads", threads)
      #expect(lines[0]["kind"] == "tensors" && lines[0]["configuration"] == .null && lines[0]["unknown_keys"] == [])
      #expect(lines[0]["tensors"]?.intValue == lines.count - 1)
      var compared = 0
      for line in lines.dropFirst() {
        let name = try #require(line["name"]?.stringValue)
        let statistics = expected[name] ?? ["min": nil, "max": nil, "mean": nil, "norm": nil, "nonfinite": nil]
        for member in try #require(statistics.objectValue).members {
          #expect(agree(line[member.key], member.value), "\(name) \(member.key): \(line) \(member.value)")
        }
        compared += expected[name] == nil ? 0 : 1
      }
      #expect(compared == expected.count && compared > 5)
    }
  }

  @Test(arguments: ["inspect/lora", "golden/topk/adapter", "golden/ffn-only/adapter", "golden/left-padding/adapter"])
  func singularValuesAreNumPys(_ path: String) throws {
    let expected = try #require(Self.expected["updates"]?[path]?.objectValue)
    let lines = try lines(path)
    #expect(lines[0]["kind"] == "adapter")
    #expect(lines[0]["format"] == (path.contains("topk") ? "pytorch" : "safetensors"))
    #expect(lines[0]["unknown_keys"] == (path == "inspect/lora" ? ["some_future_switch"] : []))
    let updates = lines.filter { $0["update"] != nil }
    #expect(updates.count == expected.count && updates.count >= 4)
    #expect(lines.count == 1 + (lines[0]["tensors"]?.intValue ?? 0) + updates.count)
    for line in updates {
      let found = try #require(line["singular_values"]?.arrayValue).map { $0.doubleValue ?? .nan }
      let values = try #require(expected[line["update"]?.stringValue ?? ""]?.arrayValue).map { $0.doubleValue ?? .nan }
      #expect(found.count == values.count)
      for (a, b) in zip(found, values) { #expect(abs(a - b) <= 1e-13 * values[0], "\(line)") }
    }
  }

  @Test func aModelsConfigurationAndUnknownKeysAreListed() throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("ffn-only")
    try scratch.edit(folder.appending(path: "model/config.json"), "{", #"{"brand_new": [1], "sliding_window": 7, "quite_new": null, "#)
    let result = try Program.run(["inspect", folder.path + "/model", "--json"])
    let first = try JSON(parsing: String(try #require(result.output.split(separator: "\n").first)), file: "output")
    #expect(first["kind"] == "model" && first["unknown_keys"] == ["brand_new", "sliding_window", "quite_new"])
    #expect(first["configuration"]?["num_hidden_layers"] == 2 && first["configuration"]?["model_type"] == "llama")
    let text = try Program.run(["inspect", folder.path + "/model"])
    #expect(
      text.output.contains("brand_new, sliding_window, quite_new") && text.output.contains("model.layers.*.mlp.up_proj.weight"),
      "\(text.output)")
  }

  @Test func aGGUFFileIsAModelByItsArchitecture() throws {
    let lines = try lines("gguf/qwen2.gguf")
    #expect(lines[0]["kind"] == "model" && lines[0]["format"] == "gguf" && lines[0]["configuration"]?["model_type"] == "qwen2")
    #expect(lines[0]["configuration"]?["use_sliding_window"] == false && lines.count > 20)
    let unknown = try self.lines("hostile/gguf-model/unknown-keys.gguf")
    #expect(unknown[0]["unknown_keys"]?.arrayValue?.isEmpty == false)
    let other = try self.lines("hostile/gguf-model/architecture-phi3.gguf")
    #expect(other[0]["kind"] == "tensors", "a model of an architecture that is not built has tensors all the same")
  }

  @Test(arguments: [
    ("hostile/adapter/a-and-b-swapped", "lora_A.weight"), ("hostile/adapter/branch-missing", "both matrices of a branch"),
    ("hostile/adapter/pytorch-cut", "adapter_model.bin"), ("hostile/gguf/data-one-short.gguf", "cut off"), ("nowhere", "nowhere"),
    ("golden/topk/model/config.json", "folder"), ("golden", "config.json"),
  ])
  func whatIsDamagedIsSaid(_ path: String, _ part: String) throws {
    let result = try Program.run(["inspect", Self.fixtures + "/" + path])
    #expect(result.code == 3 && result.output.isEmpty && result.error.contains(part), "\(result.code) \(result.error)")
  }

  @Test func noHostileFileEndsOtherwiseThanInASentence() throws {
    let cases = HostileCases.all.filter { $0.path.hasPrefix("adapter/") || $0.path.hasPrefix("gguf-model/") }
    #expect(cases.count > 50)
    for item in cases {
      let result = try Program.run(["inspect", Self.fixtures + "/hostile/" + item.path, "--stats", "--json", "--threads", "1"])
      #expect(result.code == 0 || result.code == 3, "\(item.path): \(result.code) \(result.error)")
      #expect((result.code == 3) == result.error.hasPrefix("error: "), "\(item.path)")
    }
  }
}
