import ArgumentParser
import Checkpoints
import Decoders
import Layers
import Platform
import Tensors
import Traces
import Training

/// Runs one batch through a model and writes what came out, tensor by tensor.
struct TraceCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "trace",
    abstract: "Run a batch forward (and backward) and write every result to a safetensors file.",
    usage: """
      mixlora trace --model <path> --batch <file> --out <file> [<options>]
      mixlora trace --model <path> --list [<options>]
      """,
    discussion: """
      The batch is a safetensors file: input_ids I64 (B,T); optional attention_mask I64 (B,T), one run of ones a row; \
      optional labels I64 (B,T), -100 where nothing is asked. A token's position is its column; column t counts when it \
      and the column before are real and it has a label.

      Written are logits (B,T,V), router_logits (layers·B·T,E) with a MixLoRA adapter, and with labels loss (1) and \
      aux_loss (1). Padded positions are zero.

      --backward adds the gradients of loss + aux_loss: grad.<name in the adapter file>, without an adapter those of all \
      base tensors.
      --steps adds loss_curve (N), loss + aux_loss before each step, and after.<name>; with --activations also AdamW's moments of \
      the names that the pattern matches, exp_avg.<name> and exp_avg_sq.<name>.
      --activations adds the output of every module, (B,T,width) under Hugging Face's module paths (model.layers.0.mlp.output), \
      and under --backward their gradients as grad.<path>; W1 x and W3 x as mlp.{gate,up}_proj.base.output where experts share \
      them; each token's experts as mlp.moe_gate.choice; and the rows of expert E, where an evaluation forms them, as \
      mlp.experts.E.{gate_proj.output, up_proj.output, hidden, down_proj.output} with mlp.experts.E.tokens, the place \
      b·T + t of each row's token. A pattern chooses among them; quote it. --list prints them all.

      Several adapters share one base: the batch says in adapter I64 (B) which one serves a row, -1 for the base alone \
      (absent: 0). loss and aux_loss are then (A), loss_curve (A,N), and what an adapter owns is named adapter.I.…

      The names stand in the file's metadata under "order" in the order of the run, forward, backward, optimizer: the first that \
      differs from another program's is where to look.

      Examples:
        mixlora trace --model m --batch b.st --out t.st
        mixlora trace --model m --adapter a --batch b.st --out t.st --backward
        mixlora trace --model m --adapter a --batch b.st --out t.st --steps 3
        mixlora trace --model m --adapter a --batch b.st --out t.st \\
          --activations 'model.layers.0.*' --dtype float64
        mixlora trace --model m --adapter a --list
      """)

  @OptionGroup var input: RunOptions

  @Option(help: ArgumentHelp("Where to write the trace.", valueName: "file"))
  var out: String?

  @Flag(help: "Print every point that a run passes, with its shape and equation, and run nothing.")
  var list = false

  @Flag(help: "With --list, print a JSON object a line.")
  var json = false

  @Flag(help: "Write gradients.")
  var backward = false

  @Flag(help: "Write activations, all or those whose path matches the pattern, and with --backward their gradients.")
  var activations = false

  @Argument(help: ArgumentHelp("Pattern of --activations, as in 'model.layers.0.*'.", valueName: "pattern"))
  var pattern: String?

  @Option(help: ArgumentHelp("Make N steps of AdamW and write the loss before each and the values after them.", valueName: "n"))
  var steps: Int?

  @OptionGroup var step: StepOptions

  @Option(help: "Precision: float32 or float64.")
  var dtype = Precision.float32

  @Option(help: "How the experts are computed; equal up to rounding.")
  var evaluation = ExpertEvaluation.sharedBase

  @Flag(help: "Form each block's caches again in backward: less memory, the same bits.")
  var recompute = false

  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  func validate() throws {
    guard input.model != nil else { throw ValidationError("Missing expected argument '--model <path>'") }
    if list {
      guard input.batch == nil, out == nil, !backward, !activations, steps == nil else {
        throw ValidationError("--list runs nothing: it goes with --model, --adapter, --evaluation and --json alone.")
      }
    } else {
      guard input.batch != nil else { throw ValidationError("Missing expected argument '--batch <file>'") }
      guard out != nil else { throw ValidationError("Missing expected argument '--out <file>'") }
      guard !json else { throw ValidationError("--json goes with --list.") }
    }
    if let pattern, !activations { throw ValidationError("Unexpected argument '\(pattern)': a pattern belongs to --activations.") }
    if let steps, steps < 1 { throw ValidationError("--steps is \(steps), expected at least 1.") }
  }

  func run() throws {
    list ? try printPoints() : try compute(in: dtype)
  }

  /// The points of the model in the order of a run.
  private func printPoints() throws {
    let files = try ModelFolder(input.model ?? "")
    let points = try input.decoder(files, hasGradients: true, evaluation: evaluation, on: ShapeBackend()).points()
    let names = points.lazy.map(\.name.count).max() ?? 0
    for point in points {
      if json {
        let shape = JSON.array(point.shape.map { size in Int(size).map { JSON($0) } ?? JSON(size) })
        let line: JSON = [
          "name": JSON(point.name), "phase": JSON(point.phase), "shape": shape, "equation": JSON(point.equation),
          "operation": JSON(point.provenance.operation.rawValue), "inputs": .array(point.provenance.inputs.map { JSON($0.name) }),
        ]
        print(line.serialized())
      } else {
        print(
          "\(pad(point.name, names)) \(pad(point.phase, 9)) \(pad("(" + point.shape.joined(separator: ",") + ")", 14)) \(point.equation)")
      }
    }
  }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    guard let batch = input.batch, let out else { return }
    let files = try ModelFolder(input.model ?? "")
    try input.requireSafeOutput(out)
    try AtomicFile.check(out)
    let tokens = try input.read(batch, files)
    if !tokens.hasLabels, backward || steps != nil {
      throw UsageError("\(backward ? "--backward" : "--steps") needs labels; \(batch) has none.")
    }
    let decoder = try input.decoder(files, hasGradients: backward || steps != nil, evaluation: evaluation, on: backend)
    try decoder.requireRows(of: tokens, batch)
    var optimizer = AdamW(
      steps == nil ? [] : decoder.parameters, learningRate: step.lr.value, weightDecay: step.weightDecay.value, on: backend)
    var request = TraceRequest()
    request.recomputes = recompute
    if activations { request.activations = { path in pattern.map { POSIX.matches(path, $0) } ?? true } }
    request.backward = backward
    request.steps = steps ?? 0
    let trace = try TraceFile.record(
      decoder, tokens, request, to: out, metadata: [("version", version)], on: backend, moments: { optimizer.moments(of: $0) },
      update: { optimizer.step($0) },
      check: { summary in
        guard activations, !summary.hasActivations else { return }
        throw UsageError("No activation's path matches '\(pattern ?? "*")'; they are like 'model.layers.0.self_attn.q_proj.output'.")
      })
    if !common.quiet, POSIX.isTerminal(.standardError) {
      let losses = trace.losses.map { ", \($0.name) \($0.values.map { fixed($0, 4) }.joined(separator: ", "))" }
      writeError("\(trace.order.count) tensors\(losses.joined()) → \(out)\n")
    }
    if let bad = trace.firstNonFinite {
      throw NonFiniteValue("tensor \(bad)", at: out, "has a value that is not finite; everything was written as it is")
    }
  }
}
