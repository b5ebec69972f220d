import ArgumentParser
import Checkpoints
import Decoders
import Layers
import Platform
import Tensors
import Traces

/// A batch and the model that runs it: what trace, step and compare have in common.
struct RunOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp("Hugging Face folder (config.json and model.safetensors or a sharded index) or GGUF file.", valueName: "path"))
  var model: String?

  @Option(
    help: ArgumentHelp(
      "MixLoRA or LoRA adapter folder: adapter_config.json and adapter_model.safetensors or .bin. May repeat.", valueName: "folder"))
  var adapter: [String] = []

  @Option(help: ArgumentHelp("Batch to run, the safetensors file that the help of trace describes.", valueName: "file"))
  var batch: String?

  @Option(help: "Form of the balance loss: pooledTopK is the authors' code, perLayerArgmax the paper's equations 8 and 9.")
  var routerLoss = BalanceLossForm.pooledTopK

  /// The batch, once its file is known to fit the model.
  func read(_ batch: String, _ files: ModelFolder) throws -> TraceBatch {
    try TraceBatch(contentsOf: batch, vocabulary: files.configuration.vocabulary, adapters: adapter.count)
  }

  /// The model with its adapters; without one the base is what may be trained.
  func decoder<B: Backend>(
    _ files: ModelFolder, hasGradients: Bool, evaluation: ExpertEvaluation, on backend: B
  ) throws -> Decoder<B> {
    try files.decoder(
      adapters: adapter.map { .folder($0) }, trainsBase: hasGradients && adapter.isEmpty, evaluation: evaluation,
      balanceLoss: routerLoss, on: backend)
  }

  /// Refuses to write over what is read: the batch, or a file in the model's or adapter's folder.
  func requireSafeOutput(_ out: String) throws {
    func resolved(_ path: String) -> String? { try? POSIX.canonicalPath(path) }
    let folder = out.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
    let parent = resolved(folder.isEmpty ? (out.hasPrefix("/") ? "/" : ".") : folder)
    for (name, read) in [("--batch", batch), ("--model", model)] + adapter.map({ ("--adapter", $0) }) {
      guard let read, let real = resolved(read) else { continue }
      guard real != resolved(out), real != parent else {
        throw UsageError("--out \(out) would write into what \(name) reads, \(read); choose another place.")
      }
    }
  }
}

/// The steps of AdamW that a run makes.
struct StepOptions: ParsableArguments {
  @Option(help: "Learning rate of the steps of AdamW.")
  var lr = Setting(1e-3)

  @Option(help: "Weight decay of the steps.")
  var weightDecay = Setting(0.01)

  func validate() throws {
    for (name, value) in [("--lr", lr.value), ("--weight-decay", weightDecay.value)] {
      guard value.isFinite, value >= 0 else { throw ValidationError("\(name) is \(value), expected a number ≥ 0.") }
    }
  }
}
