import ArgumentParser
import Checkpoints
import Decoders
import Layers
import Tensors
import Training

/// Measurements.
struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Measure speed and memory on this machine.",
    subcommands: [
      BenchTrainCommand.self, BenchGenerateCommand.self, BenchFeedForwardCommand.self, BenchOperationsCommand.self,
      BenchAdaptersCommand.self,
    ])
}

/// Times training steps of a MixLoRA adapter, beside the frozen products that no implementation can do without.
struct BenchTrainCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "train",
    abstract: "Time training steps of a MixLoRA adapter on a Llama-type model.",
    discussion: """
      A step is forward, backward and AdamW on a batch of random tokens in which every column but each row's first is labeled. \
      The floor is the time of the step's frozen products alone (forward, and the gradient of their inputs), in the same process \
      on the same threads, by the faster of two ways to share a product among threads. forward_seconds reaches to the loss and \
      includes the head's gradient, which is formed in the same pass. floor_ratio is the floor's share of forward and backward; \
      the optimizer, which is in tokens_per_second, is not in it. alpha is twice the rank. With --adapters N the step is that of N \
      adapters together, each with a batch of its own.

      Examples:
        mixlora bench train --model SmolLM2-135M
        mixlora bench train --model SmolLM2-135M-Instruct.Q4_1.gguf
        mixlora bench train --random-weights --model folder-with-config.json --phases
        mixlora bench train --random-weights --model folder-with-config.json --batch 4 --length 128 --rank 8 --json
        mixlora bench train --random-weights --weights q4_0 --recompute --model folder-with-config.json --backend cuda
      """)

  @OptionGroup var bench: BenchModelOptions

  @Option(help: "Sequences in a batch, of each adapter.")
  var batch = 2

  @Option(help: ArgumentHelp("Adapters over the base.", valueName: "n"))
  var adapters = Setting(1)

  @Option(help: "Tokens in a sequence.")
  var length = 256

  @Option(help: "What is trained: mixlora, or lora without experts.")
  var method = Method.mixlora

  @Option(help: "Timed steps, after one that is not.")
  var steps = 5

  @OptionGroup var profile: ProfileOptions
  @Flag(help: "Print one JSON object.")
  var json = false

  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  enum Method: String, ExpressibleByArgument, CaseIterable {
    case mixlora
    case lora
  }

  func validate() throws {
    try requireRange(["--batch": batch, "--adapters": adapters.value, "--steps": steps])
    try requireRange(["--length": length], 2...1_000_000)  // so that a column is labeled
    if method == .lora { try bench.branches.refuse(BranchOptions.ofExperts, because: "--method lora has no experts") }
    try validating { try recipe.checkAdapter() }
  }

  var recipe: TrainingRecipe { bench.recipe(method == .mixlora ? .mixlora : .lora) }

  func run() throws {
    try bench.requireMemory(for: self, recipe, count: adapters.value)
    try bench.requireMemory(
      for: self, rows: Double(batch) * Double(length) * Double(adapters.value),
      each: ModelFolder.configuration(bench.model).leastOfTraining(recomputes: recipe.recomputes),
      input: "--batch, --length" + (adapters.value > 1 ? ", --adapters" : ""))
    try compute()
  }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    let decoder = try bench.decoder(recipe, adapters: adapters.value, on: backend)
    let batch = randomBatch(decoder.configuration.vocabulary, on: backend)
    let training = TrainingBench(decoder, batch, seed: bench.seed, recomputes: recipe.recomputes ? .all : .none, on: backend)
    let measured = try training.measure(steps: steps, profile)
    print(json ? measured.json() : measured.text())
  }

  /// Random tokens for each adapter; every column but each row's first is a label.
  func randomBatch<B: Backend>(_ vocabulary: Int, on backend: B) -> PackedBatch<B> {
    let key = RandomKey(seed: bench.seed).derived("batch", "tokens")
    let sequences = (0..<batch * adapters.value).map { b in
      let ids = (0..<length).map { t in
        Int32(Philox.numbers(counter: SIMD4(UInt32(b), UInt32(t), 0, 0), key: key)[0] % UInt32(vocabulary))
      }
      return PackedSequence(ids: ids, labels: ids.dropFirst().map { $0 } + [nil], adapter: b / batch)
    }
    return PackedBatch(sequences, on: backend)
  }
}
