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
  @OptionGroup var profile: ProfileOptions
  @Flag(help: "Print one JSON object.")
  var json = false
  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  enum Method: String, ExpressibleByArgument, CaseIterable {
    case none, lora, mixlora
  }

  func validate() throws {
    try requireRange(["--batch": batch, "--prompt": prompt, "--repeats": repeats])
    try requireRange(["--tokens": tokens], 2...1_000_000)
    try bench.branches.refuse(["--dropout", "--recompute"], because: "generation is no training")
    switch method {
    case .none: try bench.branches.refuse(because: "--method none has no adapter")
    case .lora: try bench.branches.refuse(BranchOptions.ofExperts, because: "--method lora has no experts")
    case .mixlora: break
    }
    if let recipe { try validating { try recipe.checkAdapter() } }
  }

  var recipe: TrainingRecipe? {
    switch method {
    case .none: nil
    case .lora: bench.recipe(.lora)
    case .mixlora: bench.recipe(.mixlora)
    }
  }

  func run() throws {
    let model = try ModelFolder.configuration(bench.model)
    if let positions = model.contextLength, prompt + tokens > positions {
      throw UsageError("--prompt and --tokens are \(prompt + tokens) tokens together, and the model has \(positions) positions.")
    }
    try bench.requireMemory(for: self, recipe)
    try bench.requireMemory(
      for: self, rows: Double(batch), each: model.leastOfGeneration(prompt: prompt, tokens: tokens),
      input: "--batch, --prompt, --tokens")
    try compute()
  }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    let decoder = try bench.decoder(recipe, on: backend)
    let key = RandomKey(seed: bench.seed).derived("tokens", "bench")
    func ids(_ sequence: Int, _ range: Range<Int>) -> [Int32] {
      range.map {
        Int32(Philox.numbers(counter: SIMD4(UInt32(sequence), UInt32($0), 0, 0), key: key)[0] % UInt32(decoder.configuration.vocabulary))
      }
    }
    let marks = LayerMarks(decoder)
    var state = DecodingState(decoder, sequences: batch, on: backend)
    /// When a pass over the tokens of `range` of every sequence began and ended.
    func pass(_ range: Range<Int>, hooks: [any Hook<B>] = []) throws -> (start: Double, end: Double) {
      if range.lowerBound == 0 { state = DecodingState(decoder, sequences: batch, on: backend) }
      let new = (0..<batch).map { ids($0, range) }
      let start = POSIX.seconds
      _ = try state.logits(after: new, Run(backend, hooks: hooks))
      return (start, POSIX.seconds)
    }
    func token(_ index: Int) -> Range<Int> { prompt + index..<prompt + index + 1 }
    let reading = Spread(try (0...repeats).map { _ in try pass(0..<prompt) }.dropFirst().map { $0.end - $0.start })
    let writing = Spread(try (0..<tokens).map { try pass(token($0)) }.dropFirst().map { $0.end - $0.start })
    var profiles: [(name: String, profile: OperationProfile)] = []
    if profile.isAsked {
      var trace = ChromeTrace()
      let hooks: [any Hook<B>] = profile.profile == nil ? [] : [marks]
      for (name, count, range) in [("prompt", repeats, { _ in 0..<prompt }), ("token", tokens, token)] {
        var last = (start: 0.0, end: 0.0)
        let measured = try OperationProfile(of: count, on: backend) { last = try pass(range($0), hooks: hooks) }
        trace.add(name, "step", last.start, last.end)
        trace.add(marks.spans(last.start, last.start, last.end))
        trace.add(measured)
        profiles.append((name, measured))
      }
      if let path = profile.profile { try trace.write(to: path) }
    }
    let (read, written) = (Double(batch * prompt) / reading.median, Double(batch) / writing.median)
    if json {
      var line = JSON.Object()
      line["prompt_tokens_per_second"] = JSON(read)
      line["tokens_per_second"] = JSON(written)
      line.add("prompt_seconds", reading)
      line.add("token_seconds", writing)
      for (key, value) in [("batch", batch), ("prompt", prompt), ("tokens", tokens), ("peak_resident_bytes", backend.peakBytes)] {
        line[key] = JSON(value)
      }
      line["threads"] = JSON(backend.threadCount)
      if profile.phases { for (name, profile) in profiles { line[name + "_operation_seconds"] = profile.json } }
      return print(JSON.object(line).serialized())
    }
    print(
      """
      \(backend.machineName)
      prompt    \(fixed(read, 1)) tokens/s, \(batch) × \(prompt) tokens, \(reading.range(3)) s
      decode    \(fixed(written, 1)) tokens/s, \(batch) × \(tokens) new tokens, \(fixed(1000 * writing.median, 2)) ms a pass (\(writing.range(2, times: 1000)))
      memory    \(fixed(Double(backend.peakBytes) / 1_073_741_824, 2)) GiB peak
      """)
    if profile.phases { for (name, profile) in profiles { print(([name] + profile.lines).joined(separator: "\n")) } }
  }
}
