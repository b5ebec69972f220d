import Checkpoints

/// The tensors of a plain LoRA file under the names that PEFT writes today, whatever wrote them.
///
///     base_model.model.<module>.lora_A.weight         also with the adapter's name, lora_A.default.weight, and without base_model.model.
///     base_model.model.<module>.weight                of a module saved whole; also <module>.modules_to_save.weight, or .default.weight
///     base_model.model.<module>.base_layer.bias       a trained bias beside a branch; also <module>.bias, as before PEFT 0.6
struct PEFTNames: TensorSource {
  let source: any TensorSource
  let entries: [TensorEntry]
  private let original: [String: String]

  var file: String { source.file }

  /// Looks at all names.
  ///
  /// - Throws: `CheckpointError` where two tensors come to one name.
  init(_ source: any TensorSource) throws {
    self.source = source
    let names = Set(source.entries.map { Self.current($0.name) })
    var original: [String: String] = [:]
    entries = try source.entries.map { entry in
      var name = Self.current(entry.name)
      if name.hasSuffix(".bias"), !name.hasSuffix(".base_layer.bias"), names.contains(name.dropLast(5) + ".lora_A.weight") {
        name = name.dropLast(5) + ".base_layer.bias"
      }
      if let other = original.updateValue(entry.name, forKey: name) {
        throw CheckpointError(
          file: source.file, place: .tensor(entry.name), found: "the tensor that \(other) is, too", expected: "each tensor of \(name) once")
      }
      return try TensorEntry(name: name, elementType: entry.elementType, shape: entry.shape)
    }
    self.original = original
  }

  func entry(_ name: String) -> TensorEntry? {
    guard let original = original[name], let entry = source.entry(original) else { return nil }
    return try? TensorEntry(name: name, elementType: entry.elementType, shape: entry.shape)
  }

  func withBytes<R>(of name: String, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R {
    try source.withBytes(of: original[name] ?? name, body)
  }

  /// A name without what some writers leave in it.
  private static func current(_ name: String) -> String {
    var parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    if let i = parts.firstIndex(where: { $0 == "lora_A" || $0 == "lora_B" || $0 == "modules_to_save" }) {
      if i + 2 == parts.count - 1, parts[i + 1] == "default" { parts.remove(at: i + 1) }
      if parts[i] == "modules_to_save" { parts.remove(at: i) }
    }
    if !parts.starts(with: ["base_model", "model"]) { parts = ["base_model", "model"] + parts }
    return parts.joined(separator: ".")
  }
}
