import ArgumentParser
import Decoders
import Layers
import Tensors
import Training

/// The model that a benchmark runs, and its adapter: what `bench train` and `bench generate` have in common.
struct BenchModelOptions: ParsableArguments {
  @Option(help: ArgumentHelp("Hugging Face folder or GGUF file; with --random-weights config.json is enough.", valueName: "path"))
  var model: String
  @Flag(help: "Draw the base weights instead of reading them.")
  var randomWeights = false
  @Option(help: "How random weights are kept.")
  var weights = Weights.float32
  @OptionGroup var branches: BranchOptions
  @Option(help: "Seed of all random numbers.")
  var seed: UInt64 = 42

  enum Weights: String, ExpressibleByArgument, CaseIterable {
    case float32, bfloat16, q4_0
  }

  func validate() throws {
    guard randomWeights || weights == .float32 else {
      throw ValidationError("--weights is for --random-weights; a model's own are kept as its files have them.")
    }
  }

  /// The adapter as training would make it; alpha is twice the rank.
  func recipe(_ method: TrainingRecipe.Method) -> TrainingRecipe {
    var recipe = TrainingRecipe()
    branches.override(&recipe)
    (recipe.method, recipe.alpha, recipe.seed) = (method, 2 * Double(recipe.rank), seed)
    return recipe
  }

  /// Refuses, for `command`, a base that this process cannot hold.
  ///
  /// - Parameter recipe: that of `count` new adapters; nil for none.
  func requireMemory(for command: some ComputingCommand, _ recipe: TrainingRecipe?, count: Int = 1) throws {
    if let adapter = recipe?.adapterConfiguration {
      let numbers = try adapter.parameterCount(in: ModelFolder.configuration(model))
      try command.requireMemory(
        16 * Double(count) * numbers, for: "the adapters", input: (count > 1 ? "--adapters, " : "") + "--rank, --experts")
    }
    guard randomWeights else { return }
    let bytes = weights == .float32 ? 4 : weights == .bfloat16 ? 2 : 18.0 / 32
    try command.requireMemory(
      bytes * ModelFolder.configuration(model).parameterCount, for: "the weights", input: model + "/config.json")
  }

  /// Refuses, for `command`, rows whose numbers this process cannot hold: `each` of them for each of `rows`.
  func requireMemory(for command: some ComputingCommand, rows: Double, each: Double, input: String) throws {
    try command.requireMemory(4 * rows * each, for: "the tokens", input: input)
  }

  /// The model with so many new adapters by `recipe`, or with none.
  func decoder<B: Backend>(_ recipe: TrainingRecipe?, adapters count: Int = 1, on backend: B) throws -> Decoder<B> {
    let configuration = try ModelFolder.configuration(model)
    let adapter = recipe?.adapterConfiguration
    guard randomWeights else {
      return try ModelFolder(model).decoder(
        adapters: Array(repeating: adapter.map { .new($0, seed: seed) } ?? .none, count: count),
        evaluation: recipe?.evaluation ?? .sharedBase, on: backend)
    }
    let initial = InitialWeights(seed: seed, on: backend)
    let adapters = adapter.map { Array(repeating: AdapterSource($0, initial), count: count) } ?? []
    let evaluation = recipe?.evaluation ?? .sharedBase
    switch weights {
    case .float32: return try Decoder(configuration, weights: initial, adapters: adapters, evaluation: evaluation, on: backend)
    case .bfloat16, .q4_0:
      let random = RandomMatrices(weights == .q4_0 ? .q4_0 : .bfloat16, initial, seed: seed, on: backend)
      return try Decoder(configuration, weights: random, adapters: adapters, evaluation: evaluation, on: backend)
    }
  }
}

extension DecoderConfiguration {
  /// The least numbers that a training step holds at a time of each token, L layers, C channels, F hidden width, H heads and G of keys of
  /// width D: of every block the two rows of the stream, q, k, v, o and both hidden rows; where blocks form these again, of one of them,
  /// and the others' inputs.
  ///
  ///     b = 2 C + 2 H D + 2 G D + 2 F        L b        or      (L − 1) C + b
  func leastOfTraining(recomputes: Bool) -> Double {
    let (l, c, f, d) = (Double(layers), Double(channels), Double(feedForward.width), Double(attention.headWidth))
    let block = 2 * (c + d * Double(attention.heads + attention.keyValueHeads) + f)
    return recomputes ? (l - 1) * c + block : l * block
  }

  /// The least numbers that generation holds at a time of a sequence with so many tokens to read and then to write: keys and values of
  /// every layer, 2 L G D a token; beside them a stream and both hidden rows of what is read, C + 2 F a token, or later the logits V.
  func leastOfGeneration(prompt: Int, tokens: Int) -> Double {
    let kept = 2 * Double(layers) * Double(attention.keyValueHeads * attention.headWidth)
    let reading = Double(prompt) * (kept + Double(channels) + 2 * Double(feedForward.width))
    return max(reading, Double(prompt + tokens - 1) * kept + Double(vocabulary))
  }
}
