import ArgumentParser
import Checkpoints
import Tensors
import Training

/// Shows MixLoRA learning several tasks at once beside plain LoRA, from nothing but this program.
struct DemoCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "demo",
    abstract: "Watch MixLoRA and plain LoRA learn six tasks at once; needs no files and no network.",
    discussion: """
      A small base model lies in this program. It was trained from scratch on ten operations on letters, numbers and \
      brackets; the demo teaches it six others, all in one run, once by MixLoRA and once by plain LoRA with as many trainable \
      parameters, and asks 200 new questions of each task. Model, data, adapters, pictures and report.html are written to \
      --out, so that every other command can go on from there.

      Examples:
        mixlora demo
        mixlora demo --out first-look --seed 7 --steps 200
        mixlora demo --json --quiet
      """)

  @Option(help: ArgumentHelp("Folder for everything that is written (default: ./mixlora-demo, numbered if present).", valueName: "folder"))
  var out: String?
  @Option(help: "Seed of everything random.")
  var seed: UInt64 = 42
  @Option(help: "Steps of each of the two runs.")
  var steps = DemoSettings.steps
  @Flag(help: "Print one JSON object at the end and nothing else.")
  var json = false
  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  func validate() throws {
    guard steps >= 1 else { throw ValidationError("--steps is \(steps), expected at least 1.") }
  }

  func run() throws { try compute() }

  func compute<B: ProfilingBackend>(on backend: B) throws { try Demo(self, out: folder()).run(on: backend) }

  /// The folder to write to: the one asked for, which must be empty or new, or the first free name.
  private func folder() throws -> String {
    if let out {
      guard Folder.names(in: out).isEmpty else { throw UsageError("--out \(out) is not empty; choose another folder.") }
      return out
    }
    var (name, number) = ("mixlora-demo", 1)
    while Folder.exists(name) {
      number += 1
      name = "mixlora-demo-\(number)"
    }
    return name
  }
}

/// Sizes of the demo, fixed in Notebooks/LOG.md before the two methods were compared for the first time.
enum DemoSettings {
  static let steps = 800
  static let batch = 48
  static let learningRate = 3e-3
  static let experts = 8
  static let expertsPerToken = 2
  /// Rank of every expert and of MixLoRA's attention branches.
  static let rank = 4
  /// Plain LoRA's rank at which it has as many trainable parameters, within 2 %.
  static let plainRank = 21

  /// How both methods train, equal but for what is trained.
  static func recipe(_ method: TrainingRecipe.Method, folder: String, steps: Int, seed: UInt64) -> TrainingRecipe {
    var recipe: TrainingRecipe =
      method == .mixlora ? .mixlora(rank: rank, experts: experts, topK: expertsPerToken) : .lora(rank: plainRank)
    (recipe.model, recipe.data) = (folder + "/base", folder + "/data/train.jsonl")
    (recipe.steps, recipe.batch, recipe.saveEvery, recipe.seed) = (steps, batch, steps, seed)
    (recipe.learningRate, recipe.schedule, recipe.warmup) = (learningRate, .cosine, 0.05)
    return recipe
  }
}
