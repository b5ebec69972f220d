import ArgumentParser
import Checkpoints
import Decoders
import Layers
import Tensors
import Training

/// Times one feed-forward block with a mixture of experts, forward and backward.
struct BenchFeedForwardCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "ffn",
    abstract: "Time one feed-forward block with a mixture of experts, forward and backward.",
    discussion: """
      A block of random weights in the shape of a Llama model, and random rows. forward and backward are the medians of --repeats \
      after one that is not counted. floor is the time of the block's frozen products alone, three forward and three for the gradient \
      of their inputs, measured in the same process.

      Examples:
        mixlora bench ffn
        mixlora bench ffn --channels 4096 --hidden 11008 --tokens 2048 --backend cuda
      """)

  @OptionGroup var block: BlockOptions
  @OptionGroup var branches: BranchOptions
  @Option(help: "Seed of all random numbers.")
  var seed: UInt64 = 42
  @OptionGroup var profile: ProfileOptions
  @Flag(help: "Print one JSON object.")
  var json = false
  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  func validate() throws {
    try branches.refuse(["--recompute"], because: "the block's caches are what its backward pass is timed with")
    try validating { try recipe.checkAdapter() }
  }

  var recipe: TrainingRecipe {
    var recipe = TrainingRecipe()
    branches.override(&recipe)
    (recipe.alpha, recipe.seed) = (2 * Double(recipe.rank), seed)
    return recipe
  }

  func run() throws {
    try requireMemory(4 * 5 * Double(block.channels * block.hidden), for: "the weights", input: "--channels, --hidden")
    // x, dy and both hidden rows.
    try requireMemory(
      4 * 2 * Double(block.tokens) * Double(block.channels + block.hidden), for: "the tokens", input: "--tokens, --channels, --hidden")
    let adapter = try recipe.adapterConfiguration?.parameterCount(in: configuration()) ?? 0
    try requireMemory(4 * adapter, for: "the adapter", input: "--rank, --experts")
    try compute()
  }

  private func configuration() throws -> DecoderConfiguration {
    try DecoderConfiguration(
      [
        "model_type": "llama", "hidden_size": JSON(block.channels), "intermediate_size": JSON(block.hidden), "num_hidden_layers": 1,
        "num_attention_heads": JSON(block.channels / 64), "num_key_value_heads": JSON(block.channels / 64), "vocab_size": 8,
      ], file: "the options")
  }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    let initial = InitialWeights(seed: seed, on: backend)
    let decoder = try Decoder(
      try configuration(), weights: initial, adapters: recipe.adapterConfiguration.map { [AdapterSource($0, initial)] } ?? [],
      evaluation: recipe.evaluation, on: backend)
    let bench = try FeedForwardBench(decoder, rows: block.tokens, seed: seed, on: backend)
    let result = try bench.measure(repeats: block.repeats, profile)
    print(json ? result.json() : result.text())
  }
}
