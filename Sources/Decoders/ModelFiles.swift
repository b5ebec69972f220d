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

/// The files of a model: a Hugging Face folder, or one GGUF file.
public struct ModelFiles {
  /// What the files say about the model.
  public let configuration: DecoderConfiguration
  private let source: (any TensorSource)?  // nil for a new model
  private let seed: UInt64?
  private let layout: (any TensorLayout)?

  /// Opens a model; no tensor is read yet.
  ///
  /// - Parameters:
  ///   - path: a folder with `config.json` and `model.safetensors` or a sharded index; or a GGUF file.
  ///   - seed: if not nil, a folder without any weights is a new model whose values are drawn under it.
  /// - Throws: `CheckpointError` for everything that is missing, wrong or not built yet.
  public init(_ path: String, drawnUnder seed: UInt64? = nil) throws {
    self.seed = seed
    try Self.requireModel(path)
    if Self.isGGUF(path) {
      let file = try GGUF(path: path)
      configuration = try DecoderConfiguration(file)
      (source, layout) = (file, GGUFLayout(file, configuration))
    } else {
      configuration = try DecoderConfiguration(contentsOf: path + "/config.json")
      (source, layout) = (seed == nil || Self.hasWeights(path) ? try ShardedSafetensors.open(folder: path) : nil, nil)
    }
  }

  /// Says so where nothing, or an adapter, is given as a model, before a file is missed inside.
  ///
  /// - Throws: `CheckpointError` for a path without anything, and for a folder with an `adapter_config.json` and no `config.json`.
  public static func requireModel(_ path: String) throws {
    guard isGGUF(path) || Folder.exists(path) else {
      throw CheckpointError(file: path, found: "nothing of this name", expected: "a model's folder or GGUF file")
    }
    guard Folder.exists(path + "/adapter_config.json"), !Folder.exists(path + "/config.json") else { return }
    throw CheckpointError(file: path, found: "an adapter", expected: "a model's folder or GGUF file, to which the adapter belongs")
  }

  /// Whether the model's values are drawn, because its folder has none.
  public var isNew: Bool { source == nil }

  /// What the files at `path` say about a model whose tensors need not be there: of a folder only `config.json` is read.
  ///
  /// - Throws: `CheckpointError` as `init(_:)`.
  public static func configuration(_ path: String) throws -> DecoderConfiguration {
    isGGUF(path) ? try DecoderConfiguration(GGUF(path: path)) : try DecoderConfiguration(contentsOf: path + "/config.json")
  }

  /// Reads the model and its adapter.
  ///
  /// - Parameters:
  ///   - adapter: none, a folder of `adapter_config.json` with `adapter_model.safetensors`, else `adapter_model.bin`, or a new one.
  ///   - trainsBase: whether the base weights are trained (too).
  /// - Throws: `CheckpointError` for everything that is missing, surplus, of the wrong shape or not built yet.
  public func decoder<B: Backend>(
    adapter: AdapterOrigin = .none, trainsBase: Bool = false, evaluation: ExpertEvaluation = .sharedBase,
    balanceLoss: BalanceLossForm = .pooledTopK, on backend: B
  ) throws -> Decoder<B> {
    let base = source.map { CheckpointWeights($0, layout, on: backend) }
    let weights: any WeightSource<B> = base ?? InitialWeights(seed: seed ?? 0, on: backend)
    var file: CheckpointWeights<B>?
    var parts: (configuration: AdapterConfiguration, weights: any WeightSource<B>)?
    switch adapter {
    case .none: break
    case .folder(let folder):
      let weights = CheckpointWeights(try Self.adapterFile(folder), on: backend)
      file = weights
      parts = (try AdapterConfiguration(contentsOf: folder + "/adapter_config.json"), weights)
    case .new(let settings, let seed): parts = (settings, InitialWeights(seed: seed, on: backend))
    }
    let decoder = try Decoder(
      configuration, weights: weights, adapter: parts, trainsBase: trainsBase, evaluation: evaluation, balanceLoss: balanceLoss, on: backend
    )
    if configuration.tiesHead { try base?.acceptCopy("lm_head.weight", of: "model.embed_tokens.weight") }
    try base?.finish(ignoring: layout.map { layout in { layout.isInert($0) } } ?? Self.isInert)
    try file?.finish()
    return decoder
  }

  /// Opens a model and reads it; see `init(_:)` and `decoder`.
  ///
  /// - Throws: `CheckpointError` for everything that is missing, surplus, of the wrong shape or not built yet.
  public static func load<B: Backend>(
    _ path: String, adapter: AdapterOrigin = .none, trainsBase: Bool = false, evaluation: ExpertEvaluation = .sharedBase,
    balanceLoss: BalanceLossForm = .pooledTopK, on backend: B
  ) throws -> Decoder<B> {
    try ModelFiles(path).decoder(
      adapter: adapter, trainsBase: trainsBase, evaluation: evaluation, balanceLoss: balanceLoss, on: backend)
  }

  /// The tensors of an adapter folder: `adapter_model.safetensors`, else `adapter_model.bin`.
  ///
  /// - Throws: `CheckpointError` if neither can be read.
  public static func adapterFile(_ folder: String) throws -> any TensorSource {
    guard MappedFile.isFolder(folder) else {
      throw CheckpointError(
        file: folder, found: MappedFile.isRegularFile(folder) ? "a file" : "nothing of this name", expected: "an adapter's folder")
    }
    let safetensors = folder + "/adapter_model.safetensors"
    do { return try Safetensors(path: safetensors) } catch let error as CheckpointError where error.isMissingFile {
      do { return try PyTorchFile(path: folder + "/adapter_model.bin") } catch let error as CheckpointError where error.isMissingFile {
        throw CheckpointError(
          file: folder, found: "neither adapter_model.safetensors nor adapter_model.bin", expected: "one of them beside adapter_config.json"
        )
      }
    }
  }

  /// Whether a path is that of a GGUF file: by its name, or because it is a file and no folder.
  public static func isGGUF(_ path: String) -> Bool {
    path.utf8.suffix(5).elementsEqual(".gguf".utf8) || MappedFile.isRegularFile(path)
  }

  /// Whether a folder has weights, of whatever name and form: only one without any may be a new model.
  private static func hasWeights(_ folder: String) -> Bool {
    Folder.names(in: folder).contains { name in
      ["safetensors", "index.json", "bin", "pth", "pt", "gguf"].contains { name.hasSuffix("." + $0) }
    }
  }

  /// Old checkpoints of Hugging Face carry the rotary frequencies, which follow from the configuration.
  private static func isInert(_ name: String) -> Bool { name.hasSuffix(".self_attn.rotary_emb.inv_freq") }
}
