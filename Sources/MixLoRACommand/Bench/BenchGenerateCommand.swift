import ArgumentParser
import Checkpoints
import Decoders
import Generation
import Layers
import Platform
import Tensors
import Training

/// Times the reading of prompts and the writing of new tokens.
struct BenchGenerateCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate",
    abstract: "Time the reading of prompts and the writing of new tokens.",
    discussion: """
      --batch sequences of random tokens, each of --prompt tokens: all of them are read in one pass, then each grows by one token a pass. \
      Prompts are read --repeats times, after once that is not counted; of passes with new tokens the first is not. Medians.

      Examples:
        mixlora bench generate --model SmolLM2-135M-Instruct.Q4_1.gguf
        mixlora bench generate --random-weights --model folder-with-config.json --method mixlora --batch 8 --backend cuda
      """)

  @OptionGroup var bench: BenchModelOptions
  @Option(help: "Sequences.")
  var batch = 1
  @Option(help: "Tokens of a prompt.")
  var prompt = 480
  @Option(help: "New tokens of a sequence.")
  var tokens = 64
  @Option(help: "How often prompts are read.")
  var repeats = 3
  @Option(help: "The model's adapter.")
  var method = Method.none
  @Flag(help: "Print one JSON object.")
  var json = false
  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  enum Method: String, ExpressibleByArgument, CaseIterable {
    case none, lora, mixlora
  }

  func validate() throws {
    for (name, value, least) in [("--batch", batch, 1), ("--prompt", prompt, 1), ("--tokens", tokens, 2), ("--repeats", repeats, 1)] {
      guard (least...1_000_000).contains(value) else { throw ValidationError("\(name) is \(value), expected \(least) to 1000000.") }
    }
    if let recipe { try validating { try recipe.checkAdapter() } }
  }

  private var recipe: TrainingRecipe? {
    switch method {
    case .none: nil
    case .lora: bench.recipe(.lora)
    case .mixlora: bench.recipe(.mixlora)
    }
  }

  func run() throws {
    try bench.requireMemory(for: self, recipe)
    try compute()
  }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    let decoder = try bench.decoder(recipe, on: backend)
    if let positions = decoder.configuration.contextLength, prompt + tokens > positions {
      throw UsageError("--prompt and --tokens are \(prompt + tokens) tokens together, and the model has \(positions) positions.")
    }
    let key = RandomKey(seed: bench.seed).derived("tokens", "bench")
    func ids(_ sequence: Int, _ range: Range<Int>) -> [Int32] {
      range.map {
        Int32(Philox.numbers(counter: SIMD4(UInt32(sequence), UInt32($0), 0, 0), key: key)[0] % UInt32(decoder.configuration.vocabulary))
      }
    }
    let run = Run(backend)
    func seconds(_ state: DecodingState<B>, _ range: Range<Int>) throws -> Double {
      let new = (0..<batch).map { ids($0, range) }
      let start = POSIX.seconds
      _ = try state.logits(after: new, run)
      return POSIX.seconds - start
    }
    var (reading, writing): ([Double], [Double]) = ([], [])
    for index in 0...repeats {
      let state = DecodingState(decoder, sequences: batch, on: backend)
      let time = try seconds(state, 0..<prompt)
      if index > 0 { reading.append(time) }
      if index < repeats { continue }
      for t in prompt..<prompt + tokens {
        let time = try seconds(state, t..<t + 1)
        if t > prompt { writing.append(time) }
      }
    }
    let (read, written) = (Double(batch * prompt) / median(reading), Double(batch) / median(writing))
    if json {
      let line: JSON = [
        "prompt_tokens_per_second": JSON(read), "tokens_per_second": JSON(written), "batch": JSON(batch), "prompt": JSON(prompt),
        "tokens": JSON(tokens), "peak_resident_bytes": JSON(backend.peakBytes), "threads": JSON(backend.threadCount),
      ]
      return print(line.serialized())
    }
    print(
      """
      \(backend.machineName)
      prompt    \(fixed(read, 1)) tokens/s, \(batch) × \(prompt) tokens
      decode    \(fixed(written, 1)) tokens/s, \(batch) × \(tokens) new tokens, \(fixed(1000 * median(writing), 2)) ms a pass
      memory    \(fixed(Double(backend.peakBytes) / 1_073_741_824, 2)) GiB peak
      """)
  }
}
