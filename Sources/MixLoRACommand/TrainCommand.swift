import ArgumentParser
import CPUBackend
import Checkpoints
import Decoders
import Layers
import Tensors
import Tokenization
import Training

/// Fine-tunes a model with an adapter, or trains all of it.
struct TrainCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "train",
    abstract: "Fine-tune a model with a MixLoRA or LoRA adapter, or train all of it.",
    discussion: """
      --data is a folder of TASK/train.jsonl (arc-e, arc-c, boolq, obqa, piqa, siqa, winogrande; --task chooses, several \
      separated by ';'), or a JSON or JSON Lines file whose records have instruction, input, output; or prompt, completion; \
      or text; or messages. Metrics, checkpoints and the adapter are written to --out. With --method full \
      the whole model is: a Hugging Face folder, ready for --model; it may begin from a folder with only config.json and the \
      tokenizer, whose weights are then drawn.

      --config reads what MoE-PEFT's launcher writes for one adapter. Its data is relative to the working directory; tasks need \
      --data here. warmup_steps is ignored, as there. On purpose other than there: the loss counts answers and their end token, no \
      prompt and no padding (--loss-on all adds the prompts); a long sample loses its prompt's beginning, not its answer; every \
      epoch is shuffled anew; gradients are clipped (--clip 0 turns that off).

      --dump-batches writes step.N.input_ids, step.N.attention_mask and step.N.labels of every step N from 1, I64 (B,T), padded on \
      the right; without the prefix they are a batch for mixlora trace.

      Examples:
        mixlora train --model SmolLM2-135M --data tasks --task 'arc-e;boolq;obqa' --out run --steps 300 --batch 8 --rank 8 --alpha 16
        mixlora train --model SmolLM2-135M --data mine.jsonl --out run --epochs 2 --validation held-out.jsonl --evaluate-every 50
        mixlora train --model SmolLM2-135M --data mine.jsonl --out run --dry-run
        mixlora train --model SmolLM2-135M --data mine.jsonl --out run --resume
        mixlora train --model SmolLM2-135M --data tasks --config moe_peft.json --out run
      """)

  @Option(help: ArgumentHelp("Model to fine-tune: a Hugging Face folder or a GGUF file.", valueName: "path"))
  var model: String
  @Option(help: ArgumentHelp("Folder of tasks, or a file.", valueName: "path"))
  var data: String
  @Option(help: ArgumentHelp("Tasks of a folder, separated by ';' (default: all that are there).", valueName: "tasks"))
  var task: String?
  @Option(help: ArgumentHelp("Folder for everything that is written.", valueName: "folder"))
  var out: String
  @Option(help: "What is trained: mixlora; lora, without experts; full, all weights of the model.")
  var method = TrainMethod.mixlora
  @Option(help: ArgumentHelp("Adapter to start from; its settings hold.", valueName: "folder"))
  var adapter: String?

  @OptionGroup var branches: BranchOptions
  @Option(help: "alpha; branches are scaled by alpha/rank.")
  var alpha = 32.0
  @Flag(help: "Scale branches by alpha/√rank.")
  var rslora = false
  @Option(name: .customLong("init"), help: "How every A is drawn: kaiming or gaussian.")
  var initialisation = AdapterConfiguration.Initialisation.kaiming
  @Option(help: ArgumentHelp("Linear layers with branches, separated by ','.", valueName: "names"))
  var targets = LinearName.allCases.map(\.rawValue).joined(separator: ",")
  @Option(help: "Form of the balance loss.")
  var routerLoss = BalanceLossForm.pooledTopK
  @Option(help: "Coefficient of the balance loss.")
  var routerCoefficient = 0.001

  @Option(help: "Steps to make (default: --epochs).")
  var steps: Int?
  @Option(help: "Passes over the data.")
  var epochs = 2
  @Option(help: "Samples in a step.")
  var batch = 16
  @Option(help: "Equal parts that a step is computed in.")
  var accumulate = 1
  @Option(help: "adamw or sgd.")
  var optimizer = OptimizerName.adamw
  @Option(help: "Momentum of sgd.")
  var momentum = 0.0
  @Option(help: "Learning rate.")
  var lr = 2e-4
  @Option(help: "How the learning rate changes.")
  var schedule = LearningRateSchedule.constant
  @Option(help: "Share of the steps that are warm-up.")
  var warmup = 0.0
  @Option(help: "Largest norm of the gradient; 0 for no limit.")
  var clip = 1.0
  @Option(help: "Weight decay.")
  var weightDecay = 0.01
  @Option(help: "What every B's learning rate is multiplied with.")
  var loraPlus = 1.0
  @OptionGroup var sampling: SampleOptions
  @Option(help: ArgumentHelp("File of samples whose loss is reported.", valueName: "file"))
  var validation: String?
  @Option(help: "Steps between validations (default: at the end).")
  var evaluateEvery: Int?
  @Option(help: "Seed of everything random.")
  var seed: UInt64 = 42
  @Option(help: "Steps between checkpoints.")
  var saveEvery = 100
  @Option(help: "Checkpoints to keep: the newest ones, and beside them the best by validation.")
  var keep = 2
  @Flag(help: "Go on from the newest checkpoint in --out.")
  var resume = false
  @Flag(help: "Print parameters, memory and the first sample, and stop.")
  var dryRun = false
  @Option(help: ArgumentHelp("Write every step's ids, mask and labels to this safetensors file first.", valueName: "file"))
  var dumpBatches: String?
  @Option(help: ArgumentHelp("Options from a training JSON of MoE-PEFT; those given here win.", valueName: "file"))
  var config: String?
  @Flag(help: "Print one JSON object at the end.")
  var json = false
  @OptionGroup var common: CommonOptions

  /// What a count may be: epochs times the steps of an epoch, say, then has room in an Int.
  private static let counts = 1...1_000_000_000

  func validate() throws {
    for (name, value) in [
      ("--epochs", epochs), ("--batch", batch), ("--accumulate", accumulate),
      ("--save-every", saveEvery), ("--keep", keep), ("--steps", steps ?? 1),
      ("--evaluate-every", evaluateEvery ?? 1),
    ] where !Self.counts.contains(value) {
      throw ValidationError(
        "\(name) is \(value), expected \(value < 1 ? "at least \(Self.counts.lowerBound)" : "at most \(Self.counts.upperBound)").")
    }
    guard alpha > 0, alpha.isFinite else { throw ValidationError("--alpha is \(alpha), expected a number > 0.") }
    guard batch % accumulate == 0 else { throw ValidationError("--accumulate is \(accumulate), expected a divisor of --batch, \(batch).") }
    for (name, value) in [
      ("--lr", lr), ("--weight-decay", weightDecay), ("--clip", clip), ("--momentum", momentum),
      ("--router-coefficient", routerCoefficient),
    ] where !(value >= 0 && value.isFinite) { throw ValidationError("\(name) is \(value), expected a number ≥ 0.") }
    guard warmup >= 0, warmup <= 1 else { throw ValidationError("--warmup is \(warmup), expected a share between 0 and 1.") }
    guard warmup == 0 || schedule != .constant else {
      throw ValidationError("--warmup with --schedule constant: use constant_with_warmup, which has one.")
    }
    guard loraPlus >= 1, loraPlus.isFinite else { throw ValidationError("--lora-plus is \(loraPlus), expected at least 1.") }
    _ = try targetNames()
    _ = try QuestionTask.list(task)
    if method == .full { try refuseAdapterOptions() }
  }

  func run() throws {
    let run = try TrainingRun(self)
    if let summary = try run.run() { run.report(summary) }
  }

  func targetNames() throws -> Set<LinearName> {
    Set(
      try targets.split(separator: ",").map { name in
        guard let target = LinearName(rawValue: String(name)) else {
          throw ValidationError(
            "--targets names '\(name)', expected names among \(LinearName.allCases.map(\.rawValue).joined(separator: ","))")
        }
        return target
      })
  }

  /// Training all weights has no adapter, so what describes one would be ignored.
  private func refuseAdapterOptions() throws {
    let names = [
      "--adapter", "--rank", "--alpha", "--rslora", "--dropout", "--init", "--experts", "--top-k", "--targets", "--router-loss",
      "--router-coefficient", "--evaluation", "--lora-plus",
    ]
    if let name = names.first(where: Arguments.names.contains) {
      throw ValidationError("\(name) goes with an adapter; --method full trains the model's own weights.")
    }
  }
}

/// What is trained.
enum TrainMethod: String, ExpressibleByArgument, CaseIterable {
  case mixlora
  case lora
  case full
}

/// The optimisers by name.
enum OptimizerName: String, ExpressibleByArgument, CaseIterable {
  case adamw
  case sgd
}

extension AdapterConfiguration.Initialisation: ExpressibleByArgument {}
extension LearningRateSchedule: ExpressibleByArgument {}
