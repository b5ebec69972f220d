import Checkpoints
import MixLoRA
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

/// Models and adapters as folders on disk.
public enum ModelFolder {
  /// Reads `config.json` and the weights of a Hugging Face folder, and of an adapter folder if one is given.
  ///
  /// - Parameters:
  ///   - folder: `config.json` with `model.safetensors` or a sharded index.
  ///   - adapter: none, a folder of `adapter_config.json` with `adapter_model.safetensors`, else `adapter_model.bin`, or a new one.
  ///   - trainsBase: whether the base weights are trained (too).
  ///   - positions: how many positions the longest sequence has.
  /// - Throws: `CheckpointError` for everything that is missing, surplus, of the wrong shape or not built yet.
  public static func load<B: Backend>(
    _ folder: String, adapter: AdapterOrigin = .none, trainsBase: Bool, evaluation: ExpertEvaluation,
    balanceLoss: BalanceLossForm = .pooledTopK,
    positions: Int, on backend: B
  ) throws -> Decoder<B> {
    let configuration = try DecoderConfiguration(contentsOf: folder + "/config.json")
    let base = CheckpointWeights(try ShardedSafetensors.open(folder: folder), on: backend)
    var file: CheckpointWeights<B>?
    var parts: (configuration: AdapterConfiguration, weights: any WeightSource<B>)?
    switch adapter {
    case .none: break
    case .folder(let folder):
      let weights = CheckpointWeights(try adapterFile(folder), on: backend)
      file = weights
      parts = (try AdapterConfiguration(contentsOf: folder + "/adapter_config.json"), weights)
    case .new(let settings, let seed): parts = (settings, InitialWeights(seed: seed, on: backend))
    }
    let decoder = try Decoder(
      configuration, weights: base, adapter: parts, trainsBase: trainsBase, evaluation: evaluation, balanceLoss: balanceLoss,
      positions: positions, on: backend)
    if configuration.tiesHead { try base.acceptCopy("lm_head.weight", of: "model.embed_tokens.weight") }
    try base.finish(ignoring: isInert)
    try file?.finish()
    return decoder
  }

  /// The tensors of an adapter folder: `adapter_model.safetensors`, else `adapter_model.bin`.
  ///
  /// - Throws: `CheckpointError` if neither can be read.
  public static func adapterFile(_ folder: String) throws -> any TensorSource {
    let safetensors = folder + "/adapter_model.safetensors"
    do { return try Safetensors(path: safetensors) } catch let error as CheckpointError where error.isMissingFile {
      do { return try PyTorchFile(path: folder + "/adapter_model.bin") } catch let error as CheckpointError where error.isMissingFile {
        throw CheckpointError(
          file: folder, found: "neither adapter_model.safetensors nor adapter_model.bin", expected: "one of them beside adapter_config.json"
        )
      }
    }
  }

  /// Old checkpoints of Hugging Face carry the rotary frequencies, which follow from the configuration.
  private static func isInert(_ name: String) -> Bool { name.hasSuffix(".self_attn.rotary_emb.inv_freq") }
}
