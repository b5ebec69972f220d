import Checkpoints

/// A program that adapters are written for.
public enum AdapterProgram: String, CaseIterable, Sendable {
  /// MoE-PEFT, which opens `adapter_model.bin` alone.
  case moePEFT = "moe-peft"
  /// PEFT, which has no mixtures.
  case peft
}

extension AdapterFolder {
  static let pickleFile = "adapter_model.bin"

  /// Writes the adapter in `folder` into the existing folder `out` as another program opens it: the tensors, then the configuration, each
  /// whole or not at all.
  ///
  /// - Returns: what was changed that is worth a note.
  /// - Throws: `CheckpointError` for what cannot be read or written, and for what the program does not have.
  public static func convert(_ folder: String, to program: AdapterProgram, out: String) throws -> [String] {
    let (configuration, tensors) = try open(folder)
    let file = "\(folder)/\(configurationFile)"
    let base = try JSON(contentsOf: file)["base_model_name_or_path"]?.stringValue
    var settings = configuration
    var notes: [String] = []
    switch program {
    case .peft:
      guard settings.mixture == nil else {
        throw CheckpointError(
          file: file, place: .key("peft_type"), found: "a mixture of experts", expected: "plain LoRA: PEFT has no router and no experts")
      }
      try SafetensorsWriter.write(to: "\(out)/\(tensorsFile)", entries: tensors.entries, metadata: ["format": "pt"]) { entry, emit in
        try tensors.withBytes(of: entry.name, emit)
      }
    case .moePEFT:
      settings = try settings.forMoEPEFT(tensors, file: file, &notes)
      try writePickle(tensors, to: out)
    }
    // An absent nonlinearity is the model's own, which is not known here.
    let members = settings.json(baseModel: base).objectValue?.members ?? []
    let json = JSON.Object(members.filter { $0.key != "act_fn" || settings.mixture?.activation != nil }.map { ($0.key, $0.value) })
    try AtomicFile.write(JSON.object(json).serialized(.indented(2)) + "\n", to: "\(out)/\(configurationFile)")
    return notes
  }

  /// Writes `adapter_model.bin` beside the tensors of a folder, for MoE-PEFT, which opens nothing else.
  ///
  /// - Throws: `CheckpointError` if a file cannot be read or written.
  public static func addPickle(to folder: String) throws { try writePickle(Safetensors(path: "\(folder)/\(tensorsFile)"), to: folder) }

  private static func writePickle(_ tensors: some TensorSource, to folder: String) throws {
    try PyTorchWriter.write(to: "\(folder)/\(pickleFile)", entries: tensors.entries) { entry, emit in
      try tensors.withBytes(of: entry.name, emit)
    }
  }
}

extension AdapterConfiguration {
  /// The settings as MoE-PEFT reads them.
  ///
  /// - Throws: `CheckpointError` naming the key of what it does not have.
  fileprivate func forMoEPEFT(_ tensors: some TensorSource, file: String, _ notes: inout [String]) throws -> AdapterConfiguration {
    func refuse(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: file, place: .key(key), found: found, expected: expected + ": MoE-PEFT has nothing else")
    }
    var settings = self
    if mixture == nil {
      for (key, isThere) in [
        ("rank_pattern", !ranks.rules.isEmpty), ("alpha_pattern", !alphas.rules.isEmpty), ("modules_to_save", !saved.isEmpty),
        ("bias", biases != .none), ("init_lora_weights", lora.initialization.factorization != nil),
      ] where isThere { throw refuse(key, "a value", "one rank and one alpha on a base as it is") }
      settings.targets = ModuleSelection(try namesInEveryBlock(tensors, refuse))
    }
    func checked(_ lora: LoRA) throws -> LoRA {
      var lora = lora
      guard lora.alpha == lora.alpha.rounded(), lora.alpha > 0 else { throw refuse("lora_alpha", "\(lora.alpha)", "a whole number > 0") }
      if lora.dropout == 0 {
        lora.dropout = 1e-12
        if notes.isEmpty { notes.append("lora_dropout is 1e-12 instead of 0, which MoE-PEFT does not take") }
      }
      return lora
    }
    settings.lora = try checked(lora)
    if let mixture { settings.mixture?.lora = try checked(mixture.lora) }
    return settings
  }

  /// The linear layers with branches, which must be the same in every block.
  private func namesInEveryBlock(_ tensors: some TensorSource, _ refuse: (String, String, String) -> CheckpointError) throws -> Set<
    LinearName
  > {
    var names: [String: Set<LinearName>] = [:]
    for entry in tensors.entries where entry.name.hasSuffix(".lora_A.weight") {
      let parts = entry.name.split(separator: ".").map(String.init)
      guard parts.count == 9, let name = LinearName(rawValue: parts[6]) else {
        throw refuse("target_modules", entry.name, "layers of blocks")
      }
      names[parts[4], default: []].insert(name)
    }
    guard let first = names.first?.value, names.allSatisfy({ $0.value == first }) else {
      throw refuse("target_modules", "other layers in one block than in another", "the same in all")
    }
    return first
  }
}
