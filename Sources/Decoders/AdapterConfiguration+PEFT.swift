import Checkpoints

/// What a plain LoRA adapter's configuration says, by PEFT's keys and defaults.
extension AdapterConfiguration {
  /// Reads the keys of a "LORA" configuration.
  init(plain reader: JSONReader) throws {
    try reader.refuseUnbuiltFeatures()
    var lora = try Self.lora(reader, over: LoRA(rank: 8, alpha: 8))
    lora.initialization = try Self.initialization(reader) ?? lora.initialization
    self.init(lora: lora, targets: try Self.selection(reader))
    ranks = try Self.numbers(reader, "rank_pattern", "a whole number in \(Self.ranks)") { value in
      value.intValue.flatMap { Self.ranks.contains($0) ? $0 : nil }
    }
    alphas = try Self.numbers(reader, "alpha_pattern", "a number") { value in value.doubleValue.flatMap { $0.isFinite ? $0 : nil } }
    biases = Biases(rawValue: try reader.string("bias", default: "none", oneOf: ["none", "all", "lora_only"])) ?? .none
    saved = try (reader.value("modules_to_save") == nil ? [] : reader.strings("modules_to_save")).map { name in
      guard !name.isEmpty else { throw reader.error("modules_to_save", "an empty name", "names of modules") }
      return try Self.pattern(reader, "modules_to_save") { try SavedModule(name) }
    }
    // Meant for layers that keep Wᵀ, which none of our models has: PEFT warns and goes on without it.
    if try reader.bool("fan_in_fan_out", default: false) { unknownKeys.append("fan_in_fan_out") }
    for (key, method) in [("loftq_config", "loftq"), ("corda_config", "corda"), ("lora_ga_config", "lora_ga")]
    where reader.value(key) != nil {
      if reader[key]?.isEmptyOrOff == false { unknownKeys.append("\(key) (of \(method), which the adapter does not use)") }
    }
  }

  /// How the values of a new adapter are made, and for PiSSA and OLoRA how the base weights are changed.
  private static func initialization(_ reader: JSONReader) throws -> Initialization? {
    guard let value = reader.value("init_lora_weights") else { return nil }
    let expected =
      "true, false, \"gaussian\", \"eva\", \"orthogonal\", \"pissa\" or \"olora\"; others change the base weights in another way"
    if value.boolValue != nil { return .kaiming }
    guard let name = value.stringValue else { throw reader.error("init_lora_weights", value, expected) }
    switch name {
    case "gaussian": return .gaussian
    case "pissa": return .pissa
    case "olora", "OLoRA": return .olora
    case "eva", "orthogonal": return nil  // the values say all
    default: throw reader.error("init_lora_weights", value, expected)
    }
  }

  // MARK: Modules

  /// `target_modules`, `exclude_modules`, `layers_to_transform` and `layers_pattern`.
  private static func selection(_ reader: JSONReader) throws -> ModuleSelection {
    var selection = ModuleSelection(try targetNames(reader))
    selection.excluded = try excludedNames(reader)
    let patterns = try names(reader, "layers_pattern")
    let value = reader.value("layers_to_transform")
    guard let value else {
      guard patterns.allSatisfy(\.isEmpty) else {
        throw reader.error("layers_pattern", patterns.joined(separator: ", "), "layers_to_transform beside it")
      }
      return selection
    }
    if case .listed = selection.targets {
    } else {
      throw reader.error("layers_to_transform", value, "no such key, or null, where target_modules is a string")
    }
    let numbers = (value.arrayValue ?? [value]).map(\.intValue)
    guard !numbers.contains(nil) else { throw reader.error("layers_to_transform", value, "a number of a block, or a list of them") }
    selection.layers = ModuleSelection.Layers(numbers: Set(numbers.compactMap { $0 }), isList: value.arrayValue != nil)
    selection.layersPatterns = try patterns.filter { !$0.isEmpty }.map { text in
      try pattern(reader, "layers_pattern") { try ModuleSelection.LayersPattern(text) }
    }
    return selection
  }

  /// Absent or null, PEFT takes q_proj and v_proj for every family that is built here.
  private static func targetNames(_ reader: JSONReader) throws -> ModuleSelection.Names {
    guard let value = reader.value("target_modules") else { return .listed(["q_proj", "v_proj"]) }
    if let text = value.stringValue {
      return text.lowercased() == "all-linear" ? .allLinear : .pattern(try pattern(reader, "target_modules") { try ModulePattern(text) })
    }
    if value.objectValue != nil { return ModuleSelection(try targets(reader)).targets }
    let list = try names(reader, "target_modules")
    guard !list.isEmpty else { throw reader.error("target_modules", value, "at least one name") }
    return .listed(list)
  }

  private static func excludedNames(_ reader: JSONReader) throws -> ModuleSelection.Names? {
    guard let value = reader.value("exclude_modules") else { return nil }
    if let text = value.stringValue {
      return text.isEmpty ? nil : .pattern(try pattern(reader, "exclude_modules") { try ModulePattern(text) })
    }
    let list = try names(reader, "exclude_modules")
    return list.isEmpty ? nil : .listed(list)
  }

  /// A list of names, or one alone; empty if it is absent.
  private static func names(_ reader: JSONReader, _ key: String) throws -> [String] {
    guard let value = reader.value(key) else { return [] }
    if let name = value.stringValue { return [name] }
    return try reader.strings(key)
  }

  private static func numbers<Number>(
    _ reader: JSONReader, _ key: String, _ expected: String, _ number: (JSON) -> Number?
  ) throws -> ModuleNumbers<Number> {
    guard let value = reader.value(key) else { return ModuleNumbers() }
    guard let object = value.objectValue else { throw reader.error(key, value, "an object of patterns, each with \(expected)") }
    return ModuleNumbers(
      rules: try object.members.map { member in
        guard let number = number(member.value) else { throw reader.error("\(key).\(member.key)", member.value, expected) }
        return try pattern(reader, key) { try ModuleNumbers.Rule(member.key, number) }
      })
  }

  /// A pattern's error as one of the file.
  private static func pattern<T>(_ reader: JSONReader, _ key: String, _ make: () throws -> T) throws -> T {
    do { return try make() } catch let error as PatternError { throw reader.error(key, error.found, error.expected) }
  }
}
