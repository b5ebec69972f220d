import Checkpoints
import MixLoRA
import Tensors

/// Models and adapters as folders on disk.
public enum ModelFolder {
  /// Reads `config.json` and the weights of a Hugging Face folder, and of an adapter folder if one is given.
  ///
  /// - Parameters:
  ///   - folder: `config.json` with `model.safetensors` or a sharded index.
  ///   - adapter: `adapter_config.json` with `adapter_model.safetensors`, else `adapter_model.bin`.
  ///   - trainsBase: whether the base weights are trained (too).
  ///   - positions: how many positions the longest sequence has.
  /// - Throws: `CheckpointError` for everything that is missing, surplus, of the wrong shape or not built yet.
  public static func load<B: Backend>(
    _ folder: String, adapter: String?, trainsBase: Bool, evaluation: ExpertEvaluation, balanceLoss: BalanceLossForm = .pooledTopK,
    positions: Int, on backend: B
  ) throws -> Decoder<B> {
    let configuration = try DecoderConfiguration(contentsOf: folder + "/config.json")
    let base = CheckpointWeights(try ShardedSafetensors.open(folder: folder), on: backend)
    let adapterParts = try adapter.map { folder in
      (
        configuration: try AdapterConfiguration(contentsOf: folder + "/adapter_config.json"),
        weights: CheckpointWeights(try adapterFile(folder), on: backend)
      )
    }
    let decoder = try Decoder(
      configuration, weights: base, adapter: adapterParts.map { ($0.configuration, $0.weights) }, trainsBase: trainsBase,
      evaluation: evaluation, balanceLoss: balanceLoss, positions: positions, on: backend)
    if configuration.tiesHead { try base.acceptCopy("lm_head.weight", of: "model.embed_tokens.weight") }
    try base.finish(ignoring: isInert)
    try adapterParts?.weights.finish()
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
