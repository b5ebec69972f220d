import Checkpoints
import Foundation
import Testing

/// A small model with a mixture, and traces of it to compare: right ones, and ones with something changed.
final class ComparedRun {
  private let scratch = try! Scratch()
  let folder: URL

  init() throws {
    folder = try scratch.golden("topk")
    // The adapter as safetensors, which can be written again.
    let adapter = try PyTorchFile(path: path("adapter/adapter_model.bin"))
    try SafetensorsWriter.write(to: path("adapter/adapter_model.safetensors"), entries: adapter.entries) { entry, emit in
      try adapter.withBytes(of: entry.name) { try emit($0) }
    }
    try FileManager.default.removeItem(atPath: path("adapter/adapter_model.bin"))
  }

  var model: [String] { ["--model", path("model"), "--adapter", path("adapter"), "--batch", path("batch.safetensors")] }

  func path(_ name: String) -> String { folder.appending(path: name).path }

  /// Replaces text in a file of the model, once.
  func replace(_ name: String, _ old: String, _ new: String) throws { try scratch.edit(folder.appending(path: name), old, new) }

  /// Traces the model as it now is; gives the file.
  @discardableResult func trace(_ name: String, _ options: [String] = ["--dtype", "float64"]) throws -> String {
    let result = try Program.run(
      ["trace"] + model + ["--out", path(name), "--backward", "--activations", "--threads", "1", "--quiet"] + options)
    #expect(result.code == 0, "\(result.error)")
    return path(name)
  }

  /// The exit code, the last line, and the lines of the tensors by name.
  func compare(_ arguments: [String]) throws -> (code: Int32, last: JSON, tensors: [String: JSON], error: String) {
    let result = try Program.run(["compare"] + arguments + ["--json", "--quiet", "--threads", "1"])
    let lines = try result.output.split(separator: "\n").map { try JSON(parsing: String($0), file: "compare") }
    let tensors = Dictionary(uniqueKeysWithValues: lines.dropLast().map { ($0["tensor"]?.stringValue ?? "", $0) })
    return (result.code, lines.last ?? .null, tensors, result.error)
  }

  /// Writes a file again with some tensors changed: names, sizes, numbers; nil leaves a tensor out.
  func edit(_ file: String, _ change: (_ tensor: inout Edited) -> Bool) throws {
    let source = try Safetensors(path: file)
    var edited: [Edited] = []
    for entry in source.entries {
      var tensor = Edited(name: entry.name, shape: entry.shape, type: entry.elementType, values: [])
      tensor.values = try source.withBytes(of: entry.name) { bytes in
        entry.elementType == .float64
          ? bytes.bindMemory(to: Double.self).map { $0 } : bytes.bindMemory(to: Float.self).map { Double($0) }
      }
      if change(&tensor) { edited.append(tensor) }
    }
    try SafetensorsWriter.write(
      to: file, entries: try edited.map { try TensorEntry(name: $0.name, elementType: $0.type, shape: $0.shape) },
      metadata: source.metadata.members.map { ($0.key, $0.value.stringValue ?? "") }
    ) { entry, emit in
      let tensor = edited.first { $0.name == entry.name }!
      if tensor.type == .float64 {
        try tensor.values.withUnsafeBytes { try emit($0) }
      } else {
        try tensor.values.map { Float($0) }.withUnsafeBytes { try emit($0) }
      }
    }
  }

  /// A tensor of a file.
  struct Edited {
    var name: String
    var shape: [Int]
    let type: ElementType
    var values: [Double]
  }

  /// Makes expert 1's logits of the first layer those of expert 0, apart by a rounding: whoever of the two is chosen alone may flip.
  func tieExperts(_ sign: Double) throws {
    try edit(path("adapter/adapter_model.safetensors")) { tensor in
      guard tensor.name.contains("layers.0"), tensor.name.hasSuffix("moe_gate.weight") else { return true }
      let width = tensor.shape[1]
      for i in 0..<width { tensor.values[width + i] = tensor.values[i] * (1 + sign * 0x1p-23) }
      return true
    }
  }
}
