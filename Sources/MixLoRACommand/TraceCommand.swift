import ArgumentParser
import CPUBackend
import Checkpoints
import Decoders
import Layers
import Tensors
import Traces
import Training

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Runs one batch through a model and writes what came out, tensor by tensor.
struct TraceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "trace",
    abstract: "Run a batch forward (and backward) and write every result to a safetensors file.",
    discussion: """
      The batch is a safetensors file: input_ids I64 (B,T); optional attention_mask I64 (B,T), one run of ones a row; \
      optional labels I64 (B,T), -100 where nothing is asked. A token's position is its column; column t counts when it \
      and the column before are real and it has a label.

      Written are logits (B,T,V), router_logits (layers·B·T,E) with a MixLoRA adapter, and with labels loss (1) and \
      aux_loss (1). Padded positions are zero.

      --backward adds the gradients of loss + aux_loss: grad.<name in the adapter file>, without an adapter those of all \
      base tensors.
      --steps adds loss_curve (N), loss + aux_loss before each step, and after.<name>.
      --activations adds the output of every module, (B,T,width) under Hugging Face's module paths (model.layers.0.mlp.output), \
      and under --backward their gradients as grad.<path>; W1 x and W3 x as mlp.{gate,up}_proj.base.output where experts share \
      them; each token's experts as mlp.moe_gate.choice; and the rows of expert E, where an evaluation forms them, as \
      mlp.experts.E.{gate_proj.output, up_proj.output, hidden, down_proj.output} with mlp.experts.E.tokens, the place \
      b·T + t of each row's token. A pattern chooses among them; quote it.

      The names stand in the file's metadata under "order" in the order of the run, forward then backward: the first that \
      differs from another program's is where to look.

      Examples:
        mixlora trace --model m --batch b.st --out t.st
        mixlora trace --model m --adapter a --batch b.st --out t.st --backward
        mixlora trace --model m --adapter a --batch b.st --out t.st --steps 3
        mixlora trace --model m --adapter a --batch b.st --out t.st \\
          --activations 'model.layers.0.*' --dtype float64
      """)

  @Option(
    help: ArgumentHelp("Hugging Face folder (config.json and model.safetensors or a sharded index) or GGUF file.", valueName: "path"))
  var model: String

  @Option(
    help: ArgumentHelp("MixLoRA or LoRA adapter folder: adapter_config.json and adapter_model.safetensors or .bin.", valueName: "folder"))
  var adapter: String?

  @Option(help: ArgumentHelp("Batch to run.", valueName: "file"))
  var batch: String

  @Option(help: ArgumentHelp("Where to write the trace.", valueName: "file"))
  var out: String

  @Flag(help: "Write gradients.")
  var backward = false

  @Flag(help: "Write activations, all or those whose path matches the pattern, and with --backward their gradients.")
  var activations = false

  @Argument(help: ArgumentHelp("Pattern of --activations, as in 'model.layers.0.*'.", valueName: "pattern"))
  var pattern: String?

  @Option(help: ArgumentHelp("Make N steps of AdamW and write the loss before each and the values after them.", valueName: "n"))
  var steps: Int?

  @Option(help: "Learning rate of --steps.")
  var lr = 1e-3

  @Option(help: "Weight decay of --steps.")
  var weightDecay = 0.01

  @Option(help: "Precision: float32 or float64.")
  var dtype = Precision.float32

  @Option(help: "Where to compute: cpu.")
  var backend = Device.cpu

  @Option(help: "How the experts are computed; equal up to rounding.")
  var evaluation = ExpertEvaluation.sharedBase

  @Option(help: "Form of the balance loss: pooledTopK is the authors' code, perLayerArgmax the paper's equations 8 and 9.")
  var routerLoss = BalanceLossForm.pooledTopK

  @Flag(help: "Form each block's caches again in backward: less memory, the same bits.")
  var recompute = false

  @OptionGroup var common: CommonOptions

  func validate() throws {
    if let pattern, !activations { throw ValidationError("Unexpected argument '\(pattern)': a pattern belongs to --activations.") }
    if let steps, steps < 1 { throw ValidationError("--steps is \(steps), expected at least 1.") }
    guard lr.isFinite, lr >= 0 else { throw ValidationError("--lr is \(lr), expected a number ≥ 0.") }
    guard weightDecay.isFinite, weightDecay >= 0 else { throw ValidationError("--weight-decay is \(weightDecay), expected a number ≥ 0.") }
  }

  func run() throws {
    switch dtype {
    case .float32: try run(on: CPUFloat(threads: common.threadCount), writing: .float32)
    case .float64: try run(on: CPUDouble(threads: common.threadCount), writing: .float64)
    }
  }

  private func run<B: Backend>(on backend: B, writing type: ElementType) throws {
    let files = try ModelFolder(model)
    try requireSafeOutput()
    try AtomicFile.check(out)
    let input = try TraceBatch(contentsOf: batch, vocabulary: files.configuration.vocabulary)
    if !input.hasLabels, backward || steps != nil {
      throw UsageError("\(backward ? "--backward" : "--steps") needs labels; \(batch) has none.")
    }
    let needsGradients = backward || steps != nil
    let decoder = try files.decoder(
      adapter: adapter.map { .folder($0) } ?? .none, trainsBase: needsGradients && adapter == nil, evaluation: evaluation,
      balanceLoss: routerLoss, on: backend)
    var optimizer = steps.map { _ in AdamW(decoder.parameters, learningRate: lr, weightDecay: weightDecay, on: backend) }
    var request = TraceRequest()
    request.recomputes = recompute
    if activations { request.activations = { path in pattern.map { matches(path, $0) } ?? true } }
    request.backward = backward
    request.steps = steps ?? 0
    let trace = try Trace.record(decoder, input, request, on: backend) { optimizer?.step($0) }

    if activations, !trace.hasActivations {
      throw UsageError("No activation's path matches '\(pattern ?? "*")'; they are like 'model.layers.0.self_attn.q_proj.output'.")
    }
    let entries = try trace.tensors.map { try TensorEntry(name: $0.name, elementType: type, shape: $0.shape) }
    let order = JSON.array(trace.tensors.map { JSON($0.name) })
    let values = Dictionary(uniqueKeysWithValues: trace.tensors.map { ($0.name, $0.values) })
    try SafetensorsWriter.write(
      to: out, entries: entries, metadata: ["format": "mixlora trace", "version": version, "order": order.serialized()]
    ) { entry, emit in
      try values[entry.name]?.withUnsafeBytes { try emit($0) }
    }
    if !common.quiet, isatty(2) == 1 {
      let losses = ["loss", "aux_loss"].compactMap { name in values[name].map { "\(name) \(fixed(Double($0[0]), 4))" } }
      writeError("\(trace.tensors.count) tensors\(losses.map { ", " + $0 }.joined()) → \(out)\n")
    }
    if let bad = trace.firstNonFinite {
      throw NonFiniteValue("tensor \(bad.name)", at: out, "has a value that is not finite; everything was written as it is")
    }
  }
}

extension TraceCommand {
  /// Refuses to write over what it reads: the batch, or a file in the model's or adapter's folder.
  private func requireSafeOutput() throws {
    func resolved(_ path: String) -> String? {
      guard let real = realpath(path, nil) else { return nil }
      defer { free(real) }
      return String(cString: real)
    }
    let folder = out.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
    let parent = resolved(folder.isEmpty ? (out.hasPrefix("/") ? "/" : ".") : folder)
    for (name, input) in [("--batch", batch), ("--model", model), ("--adapter", adapter)] {
      guard let input, let real = resolved(input) else { continue }
      guard real != resolved(out), real != parent else {
        throw UsageError("--out \(out) would write into what \(name) reads, \(input); choose another place.")
      }
    }
  }
}
