import CPUBackend
import Checkpoints
import Decoders
import Tensors

/// What stands at a path: a model, an adapter or tensors alone, with its configuration as it was understood.
struct Inspection {
  enum Kind: String { case model, adapter, tensors }

  let path: String
  let kind: Kind
  let source: any TensorSource
  /// The tensors by name; of a trace in the order of the run, which its metadata holds.
  var entries: [TensorEntry] {
    guard let order = (source as? Safetensors)?.metadata["order"]?.stringValue.flatMap({ try? JSON(parsing: $0, file: path) })?.arrayValue
    else { return source.entries }
    let places = Dictionary(order.enumerated().map { ($1.stringValue ?? "", $0) }) { first, _ in first }
    return source.entries.enumerated().sorted { a, b in
      (places[a.element.name] ?? .max, a.offset) < (places[b.element.name] ?? .max, b.offset)
    }.map(\.element)
  }
  /// null for tensors alone.
  let configuration: JSON
  let unknownKeys: [String]
  /// The low-rank updates of an adapter.
  let updates: [AdapterUpdate]

  /// Opens what is there.
  ///
  /// - Throws: `CheckpointError` for what is missing, damaged, or not built yet.
  init(_ path: String) throws {
    self.path = path
    if MappedFile.isFolder(path) {
      if MappedFile.isRegularFile(path + "/adapter_config.json") {
        let file = path + "/adapter_config.json"
        let adapter = try AdapterConfiguration(contentsOf: file)
        kind = .adapter
        source = try AdapterFolder.tensors(in: path)
        configuration = adapter.json(baseModel: try JSON(contentsOf: file)["base_model_name_or_path"]?.stringValue)
        unknownKeys = adapter.unknownKeys
        updates = try adapter.updates(in: source)
        return
      }
      guard MappedFile.isRegularFile(path + "/config.json") else {
        throw CheckpointError(
          file: path, found: "neither config.json nor adapter_config.json", expected: "a folder of a model or an adapter, or a file")
      }
      let model = try ModelFolder.configuration(path)
      let type = try JSON(contentsOf: path + "/config.json")["model_type"]
      (kind, source, updates) = (.model, try ShardedCheckpoint.open(folder: path), [])
      (configuration, unknownKeys) = (Self.configuration(model, type), model.unknownKeys)
      return
    }
    updates = []
    let source = try Self.tensors(path)
    // A GGUF file of an architecture that is read here is a model; others still hold tensors.
    if let file = source as? GGUF, let architecture = try file.metadata.value("general.architecture")?.stringValue,
      ["llama", "qwen2"].contains(architecture)
    {
      let model = try DecoderConfiguration(file)
      kind = .model
      (configuration, unknownKeys) = (Self.configuration(model, JSON(architecture)), model.unknownKeys)
    } else {
      (kind, configuration, unknownKeys) = (.tensors, .null, [])
    }
    self.source = source
  }

  /// Opens a file by its name, else by its first bytes.
  private static func tensors(_ path: String) throws -> any TensorSource {
    if path.hasSuffix(".index.json") { return try ShardedCheckpoint.open(index: path) }
    if path.hasSuffix(".safetensors") { return try Safetensors(path: path) }
    if path.hasSuffix(".gguf") { return try GGUF(path: path) }
    if [".bin", ".pt", ".pth"].contains(where: { path.hasSuffix($0) }) { return try PyTorchFile(path: path) }
    let file = try MappedFile(path: path)
    switch try file.bytes(in: 0..<min(4, file.size)) {
    case Array("GGUF".utf8): return try GGUF(file)
    case [0x50, 0x4B, 3, 4]: return try PyTorchFile(path: path)
    default:
      if path.hasSuffix(".json") {
        throw CheckpointError(file: path, found: "a JSON file", expected: "the folder that it stands in, a tensor file or its index")
      }
      return try Safetensors(file)
    }
  }

  private static func configuration(_ model: DecoderConfiguration, _ type: JSON?) -> JSON {
    var object = JSON.Object()
    object["model_type"] = type ?? .null
    for member in model.json.objectValue?.members ?? [] { object[member.key] = member.value }
    return .object(object)
  }

  var format: String {
    switch source {
    case is GGUF: "gguf"
    case is PyTorchFile: "pytorch"
    default: "safetensors"
    }
  }

  var parameters: Int { entries.reduce(0) { $0 &+ $1.elementCount } }

  // MARK: Numbers

  /// nil for a type that has no statistics.
  func statistics(of entry: TensorEntry) throws -> NumberStatistics? {
    try source.withBytes(of: entry.name) { NumberStatistics($0, entry.elementType) }
  }

  /// nil where an element is not finite.
  func singularValues(of update: AdapterUpdate, on backend: CPUDouble) throws -> [Double]? {
    let weights = CheckpointWeights(source, on: backend)
    func tensor(_ entry: TensorEntry) throws -> Tensor<CPUDouble> {
      try weights.tensor(entry.name, Shape(entry.shape[0], entry.shape[1]), .constant(0))
    }
    return backend.singularValues(update.scale, try tensor(update.b), try tensor(update.a))
  }

  // MARK: Lines for programs

  var json: JSON {
    [
      "kind": JSON(kind.rawValue), "format": JSON(format), "configuration": configuration,
      "unknown_keys": .array(unknownKeys.map { JSON($0) }), "tensors": JSON(entries.count), "parameters": JSON(parameters),
    ]
  }

  /// A tensor's line; `statistics` is nil where none were asked for, and holds nil where the type has none.
  static func json(_ entry: TensorEntry, _ statistics: NumberStatistics??) -> JSON {
    var object = JSON.Object()
    object["name"] = JSON(entry.name)
    object["dtype"] = JSON(entry.elementType.rawValue)
    object["shape"] = .array(entry.shape.map { JSON($0) })
    if let statistics {
      object["min"] = json(statistics?.finite?.minimum)
      object["max"] = json(statistics?.finite?.maximum)
      object["mean"] = json(statistics?.finite?.mean)
      object["norm"] = json(statistics?.finite?.norm)
      object["nonfinite"] = statistics.map { JSON($0.nonfinite) } ?? .null
    }
    return .object(object)
  }

  static func json(_ values: [Double]?) -> JSON { values.map { .array($0.map { JSON($0) }) } ?? .null }
  private static func json(_ value: Double?) -> JSON { value.map { JSON($0) } ?? .null }
}
