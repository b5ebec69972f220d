import Checkpoints
import Layers
import Tensors

/// Where a model's adapter comes from.
public enum AdapterOrigin: Sendable {
  /// There is none.
  case none
  /// A folder on disk.
  case folder(String)
  /// A new one of the given settings, its values drawn under a seed.
  case new(AdapterConfiguration, seed: UInt64)
}

/// A model on disk: a Hugging Face folder, or one GGUF file. It reads either and writes folders.
public struct ModelFolder {
  /// What the files say about the model.
  public let configuration: DecoderConfiguration
  let path: String
  let source: (any TensorSource)?  // nil for a new model
  private let seed: UInt64?
  let layout: (any TensorLayout)?

  /// Opens a model; no tensor is read yet.
  ///
  /// - Parameters:
  ///   - path: a folder with `config.json` and `model.safetensors` or a sharded index; or a GGUF file.
  ///   - seed: if not nil, a folder without any weights is a new model whose values are drawn under it.
  /// - Throws: `CheckpointError` for everything that is missing, wrong or not built yet.
  public init(_ path: String, newUnder seed: UInt64? = nil) throws {
    (self.path, self.seed) = (path, seed)
    try ModelPath.require(path)
    if ModelPath.isGGUF(path) {
      let file = try GGUF(path: path)
      configuration = try DecoderConfiguration(file)
      (source, layout) = (file, GGUFLayout(configuration))
    } else {
      configuration = try DecoderConfiguration(contentsOf: path + "/config.json")
      (source, layout) = (seed == nil || Self.hasWeights(path) ? try ShardedCheckpoint.open(folder: path) : nil, nil)
    }
  }

  /// Whether the model's values are drawn, because its folder has none.
  public var isNew: Bool { source == nil }

  /// What the files at `path` say about a model whose tensors need not be there: of a folder only `config.json` is read.
  ///
  /// - Throws: `CheckpointError` as `init(_:)`.
  public static func configuration(_ path: String) throws -> DecoderConfiguration {
    ModelPath.isGGUF(path) ? try DecoderConfiguration(GGUF(path: path)) : try DecoderConfiguration(contentsOf: path + "/config.json")
  }

  /// Reads the model and its adapter, if there is one.
  ///
  /// - Throws: as `decoder(adapters:…)`.
  public func decoder<B: Backend>(
    adapter: AdapterOrigin = .none, trainsBase: Bool = false, evaluation: ExpertEvaluation = .sharedBase,
    balanceLoss: BalanceLossForm = .pooledTopK, on backend: B
  ) throws -> Decoder<B> {
    try decoder(adapters: [adapter], trainsBase: trainsBase, evaluation: evaluation, balanceLoss: balanceLoss, on: backend)
  }

  /// Reads the model and the adapters over it, whose numbers are their places in the list.
  ///
  /// - Parameters:
  ///   - adapters: each a folder of `adapter_config.json` with `adapter_model.safetensors`, else `adapter_model.bin`, or a new one; none
  ///     are passed over.
  ///   - trainsBase: whether the base weights are trained (too).
  /// - Throws: `CheckpointError` for everything that is missing, surplus, of the wrong shape or not built yet.
  public func decoder<B: Backend>(
    adapters: [AdapterOrigin], trainsBase: Bool = false, evaluation: ExpertEvaluation = .sharedBase,
    balanceLoss: BalanceLossForm = .pooledTopK, on backend: B
  ) throws -> Decoder<B> {
    let base = baseWeights(on: backend)
    let weights: any WeightSource<B> = base ?? InitialWeights(seed: seed ?? 0, on: backend)
    var files: [CheckpointWeights<B>] = []
    let sources: [AdapterSource<B>] = try adapters.compactMap { origin in
      switch origin {
      case .none: return nil
      case .folder(let folder):
        let (configuration, tensors) = try AdapterFolder.open(folder)
        let weights = CheckpointWeights(tensors, on: backend)
        files.append(weights)
        return AdapterSource(configuration, weights, file: "\(folder)/\(AdapterFolder.configurationFile)")
      case .new(let settings, let seed): return AdapterSource(settings, InitialWeights(seed: seed, on: backend))
      }
    }
    let decoder = try Decoder(
      configuration, weights: weights, adapters: sources, trainsBase: trainsBase, evaluation: evaluation, balanceLoss: balanceLoss,
      on: backend)
    try base.map(requireAllRead)
    for file in files { try file.finish() }
    return decoder
  }

  /// The values of the model's files; nil for a new model.
  func baseWeights<B: Backend>(on backend: B) -> CheckpointWeights<B>? {
    // Writers that keep shared tensors once keep the first name of the alphabet.
    let standIns = configuration.head.isTied && layout == nil ? ["model.embed_tokens.weight": "lm_head.weight"] : [:]
    return source.map { CheckpointWeights($0, layout, standIns: standIns, on: backend) }
  }

  /// Throws if the model's files hold a tensor that is neither asked for nor known to carry nothing.
  func requireAllRead<B: Backend>(_ base: CheckpointWeights<B>) throws {
    if configuration.head.isTied { try base.acceptCopy("lm_head.weight", of: "model.embed_tokens.weight") }
    try base.finish(ignoring: layout.map { layout in { layout.mayGoUnread($0) } } ?? Self.mayGoUnread)
  }

  /// Opens a model and reads it; see `init(_:)` and `decoder`.
  ///
  /// - Throws: `CheckpointError` for everything that is missing, surplus, of the wrong shape or not built yet.
  public static func load<B: Backend>(
    _ path: String, adapter: AdapterOrigin = .none, trainsBase: Bool = false, evaluation: ExpertEvaluation = .sharedBase,
    balanceLoss: BalanceLossForm = .pooledTopK, on backend: B
  ) throws -> Decoder<B> {
    try ModelFolder(path).decoder(
      adapter: adapter, trainsBase: trainsBase, evaluation: evaluation, balanceLoss: balanceLoss, on: backend)
  }

  /// Whether a folder has weights, of whatever name and form: only one without any may be a new model.
  private static func hasWeights(_ folder: String) -> Bool {
    Folder.names(in: folder).contains { name in
      ["safetensors", "index.json", "bin", "pth", "pt", "gguf"].contains { name.hasSuffix("." + $0) }
    }
  }

  /// Old checkpoints of Hugging Face carry the rotary frequencies, which follow from the configuration.
  private static func mayGoUnread(_ name: String) -> Bool { name.hasSuffix(".self_attn.rotary_emb.inv_freq") }
}

// MARK: Writing

extension ModelFolder {
  static let tensorsFile = "model.safetensors"

  /// The files of a Hugging Face folder that are no tensors: `config.json`, the tokenizer's, and what else describes a model.
  public struct Files: Sendable {
    /// `config.json` last: it is what makes a folder a model.
    private static let names = [
      "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
      "chat_template.jinja", "chat_template.json", "generation_config.json", "config.json",
    ]
    private(set) var files: [(name: String, bytes: [UInt8])]

    /// Takes these files of `folder` as they are, byte for byte; those that are not there are left out.
    ///
    /// They are read at once, so that a checkpoint hours later still has them.
    /// - Throws: `CheckpointError` if one cannot be read, or if there is no `config.json`.
    public init(of folder: String) throws {
      files = try Self.names.compactMap { name in
        do {
          let file = try MappedFile(path: "\(folder)/\(name)")
          return (name, try file.bytes(in: 0..<file.size))
        } catch let error as CheckpointError where error.isMissingFile && name != "config.json" {
          return nil
        }
      }
    }

    /// The same with another value under a key of `config.json`.
    func setting(_ key: String, to value: JSON) throws -> Files {
      var changed = self
      for (i, file) in files.enumerated() where file.name == "config.json" {
        var object = try JSON(parsing: file.bytes, file: file.name).objectValue ?? JSON.Object()
        object[key] = value
        changed.files[i].bytes = Array((JSON.object(object).serialized(.indented(2)) + "\n").utf8)
      }
      return changed
    }

    /// Files that were made, `config.json` last.
    public init(_ files: [(name: String, json: JSON)]) {
      self.files = files.map { ($0.name, Array(($0.json.serialized(.indented(2)) + "\n").utf8)) }
    }
  }

  /// Writes `model.safetensors`, float32, with Hugging Face's names (a tied head once, as the embedding), and the files beside it.
  ///
  /// - Precondition: the base is trained: a frozen one may be kept in another encoding.
  /// - Throws: `CheckpointError` if the folder cannot be written, and what the device reports.
  public static func write<B: Backend>(_ decoder: Decoder<B>, beside files: Files, to folder: String, on backend: B) throws {
    guard let base = decoder.base else { trap("ModelFolder.write: the base is frozen") }
    try base.write(to: "\(folder)/\(tensorsFile)", format: "pt", on: backend)
    for file in files.files { try AtomicFile.write(file.bytes, to: "\(folder)/\(file.name)") }
  }
}
