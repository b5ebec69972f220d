import Checkpoints
import Tensors

extension ModelFolder {
  /// Writes the model with a plain LoRA adapter merged into it: `model.safetensors` with Hugging Face's names, then the files beside it.
  ///
  ///     W ← W + s B A        on every layer with a branch, summed as the backend computes and rounded once to W's own type
  ///
  /// What the adapter saves whole stands in the base's place; where that unties the head, `config.json` says so. Everything else of a
  /// folder is copied bit for bit; all of a GGUF file becomes float32.
  ///
  /// - Parameters:
  ///   - adapter: the adapter's folder.
  ///   - files: what describes the model: its configuration and tokenizer.
  ///   - out: an existing folder.
  /// - Returns: the tensors that were written.
  /// - Throws: `CheckpointError` for what cannot be read or written, and for a mixture: what it adds depends on the token.
  public func merge<B: Backend>(adapter folder: String, beside files: Files, to out: String, on backend: B) throws -> [TensorEntry] {
    guard let source, let base = baseWeights(on: backend) else { trap("ModelFolder.merge: a model without weights") }
    let (settings, tensors) = try AdapterFolder.open(folder)
    let file = "\(folder)/\(AdapterFolder.configurationFile)"
    guard settings.mixture == nil else {
      throw CheckpointError(
        file: file, place: .key("peft_type"), found: "a mixture of experts",
        expected: "plain LoRA: which experts a mixture adds depends on the token, so no weight holds them")
    }
    let own = CheckpointWeights(tensors, on: backend)
    // Every tensor that the adapter must have is asked for, so that none is missing, surplus or of another shape.
    var asked = settings
    asked.lora.initialization = .kaiming
    var adapted = DecoderAssembly(
      configuration, weights: base, adapters: [AdapterSource(asked, own, file: file)], trainsBase: true, evaluation: .sharedBase,
      on: backend)
    _ = try adapted.build()
    try own.finish()
    var plain = DecoderAssembly(configuration, weights: base, adapters: [], trainsBase: true, evaluation: .sharedBase, on: backend)
    _ = try plain.build()
    try requireAllRead(base)

    var parts = try plain.baseTensors.map { try MergedTensor($0.tensor.name, $0.tensor.parameter.shape, self, settings, base.fileName) }
    let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight")
    let isUntied = configuration.head.isTied && [embedding, head].contains { settings.ownName(ofBase: $0) != nil }
    if isUntied {
      parts.append(
        try MergedTensor(head, Shape(configuration.vocabulary, configuration.channels), self, settings, base.fileName, from: embedding))
    }
    let byName = Dictionary(parts.map { ($0.entry.name, $0) }) { first, _ in first }
    try SafetensorsWriter.write(to: "\(out)/\(Self.tensorsFile)", entries: parts.map(\.entry), metadata: ["format": "pt"]) { entry, emit in
      guard let part = byName[entry.name] else { return }
      try part.emit(base, own, source, on: backend, emit)
    }
    let files = isUntied ? try files.setting("tie_word_embeddings", to: false) : files
    for file in files.files { try AtomicFile.write(file.bytes, to: "\(out)/\(file.name)") }
    return parts.map(\.entry)
  }
}

/// A tensor of a merged model and where its values come from.
private struct MergedTensor {
  let entry: TensorEntry
  /// The model's tensor, by Hugging Face's name.
  let base: String
  let shape: Shape
  /// The file's own bytes, where nothing changes.
  let copied: String?
  /// What the adapter has in its place.
  let own: String?
  /// The branch on it, with the module's name.
  let branch: (path: String, lora: AdapterConfiguration.LoRA)?

  init(
    _ name: String, _ shape: Shape, _ model: ModelFolder, _ settings: AdapterConfiguration, _ fileName: (String) -> String,
    from base: String? = nil
  ) throws {
    self.base = base ?? name
    self.shape = shape
    own = settings.ownName(ofBase: name)
    let path = name.hasSuffix(".weight") ? String(name.dropLast(".weight".count)) : nil
    branch = own == nil ? path.flatMap { path in settings.lora(on: path).map { (path, $0) } } : nil
    let type = model.layout == nil ? model.source?.entry(fileName(self.base))?.elementType ?? .float32 : .float32
    copied = own == nil && branch == nil && model.layout == nil ? fileName(self.base) : nil
    entry = try TensorEntry(name: name, elementType: type, shape: shape.sizes)
  }

  func emit<B: Backend>(
    _ weights: CheckpointWeights<B>, _ adapter: CheckpointWeights<B>, _ source: any TensorSource, on backend: B,
    _ emit: (UnsafeRawBufferPointer) throws -> Void
  ) throws {
    if let copied { return try source.withBytes(of: copied, emit) }
    if let own { return try write(backend.download(adapter.tensor(own, shape, .constant(0))), emit) }
    var w = try weights.tensor(base, shape, .constant(0))
    guard let branch else { return try write(backend.download(w), emit) }
    let (lora, name) = (branch.lora, AdapterConfiguration.plainPrefix + branch.path)
    _ = try lora.takeFactors(outOf: &w, branch.path, on: backend) {
      CheckpointError(file: source.file, place: .tensor(base), found: $0, expected: $1)
    }
    let a = try adapter.tensor(name + ".lora_A.weight", Shape(lora.rank, shape.columns), .constant(0))
    let b = try adapter.tensor(name + ".lora_B.weight", Shape(shape.rows, lora.rank), .constant(0))
    let (update, scale) = (try backend.download(backend.matmul(b, a)), B.Scalar(lora.scale))  // (O,I)  B A
    try write(zip(backend.download(w), update).map { $0 + $1 * scale }, emit)
  }

  /// Rounds to the tensor's type.
  private func write<S: BinaryFloatingPoint>(_ values: [S], _ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
    switch entry.elementType {
    case .float64: try values.map { Double($0) }.withUnsafeBytes(emit)
    case .float16: try values.map { Float($0).halfBits }.withUnsafeBytes(emit)
    case .bfloat16: try values.map { Float($0).brainBits }.withUnsafeBytes(emit)
    default: try values.map { Float($0) }.withUnsafeBytes(emit)
    }
  }
}

extension Float {
  /// The bits of the nearest bfloat16, ties to even.
  fileprivate var brainBits: UInt16 {
    isNaN ? 0x7FC0 : UInt16((bitPattern &+ 0x7FFF &+ (bitPattern >> 16 & 1)) >> 16)
  }

  /// The bits of the nearest float16, ties to even.
  fileprivate var halfBits: UInt16 {
    let (sign, size) = (UInt16(bitPattern >> 16 & 0x8000), bitPattern & 0x7FFF_FFFF)
    if isNaN { return sign | 0x7E00 }
    if size >= 0x477F_F000 { return sign | 0x7C00 }  // 65520 and more round to infinity
    if size < 0x3880_0000 { return sign | UInt16((Float(bitPattern: size) * 16_777_216).rounded(.toNearestOrEven)) }  // below 2⁻¹⁴
    return sign | UInt16((size &+ 0xFFF &+ (size >> 13 & 1) &- 0x3800_0000) >> 13)
  }
}
