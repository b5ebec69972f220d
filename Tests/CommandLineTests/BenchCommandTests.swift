import CPUBackend
import Checkpoints
import Foundation
import Generation
import Layers
import Tensors
import Testing
import Training

@testable import MixLoRACommand

@Suite struct BenchCommandTests {
  private static let model = URL(filePath: #filePath).deletingLastPathComponent().path + "/../../Fixtures/golden/topk/model"
  /// A step of a small model.
  private static let train = [
    "bench", "train", "--random-weights", "--model", model, "--length", "8", "--steps", "1", "--rank", "2", "--experts", "4",
  ]

  private func object(_ arguments: [String]) throws -> JSON {
    let result = try Program.run(arguments)
    #expect(result.code == 0, "\(result.error)")
    return try JSON(parsing: result.output, file: "output")
  }

  @Test(arguments: [1, 3]) func theBenchPrintsTheKeysOfItsContract(_ adapters: Int) throws {
    let object = try object(Self.train + ["--steps", "2", "--adapters", "\(adapters)", "--phases", "--json"])
    for key in [
      "tokens_per_second", "step_seconds_median", "step_seconds_least", "step_seconds_most", "peak_resident_bytes", "base_bytes",
      "trainable_parameters", "loss_first", "loss_last", "floor_tokens_per_second", "floor_gflops", "floor_ratio", "threads",
      "forward_seconds", "backward_seconds", "optimizer_seconds",
    ] {
      #expect((object[key]?.doubleValue ?? 0) > 0, "\(key)")
    }
    #expect((object["operation_seconds"]?.objectValue?.count ?? 0) > 10)
    #expect(object["pool_misses_per_step"]?.intValue == 0)
    #expect(object["shared_copies_per_step"]?.intValue == 0)
  }

  /// Two flops for each weight of a block and row, and of the head and labeled row; as many for the gradient of what they read.
  @Test func theFloorIsTheFrozenProductsForwardAndBackward() throws {
    let found = try object(Self.train + ["--batch", "3", "--phases", "--json"])
    let configuration = try JSON(contentsOf: Self.model + "/config.json")
    func size(_ key: String) throws -> Double { try #require(configuration[key]?.doubleValue) }
    func number(_ key: String) throws -> Double { try #require(found[key]?.doubleValue) }
    let (c, f, v) = try (size("hidden_size"), size("intermediate_size"), size("vocab_size"))
    let kept = try c * size("num_key_value_heads") / size("num_attention_heads")
    let block = 2 * c * c + 2 * c * kept + 3 * c * f
    let (rows, labels) = (3.0 * 8, 3.0 * 7)
    let flops = 4 * (try size("num_hidden_layers") * block * rows + c * v * labels)
    let seconds = try rows / number("floor_tokens_per_second")
    #expect(try abs(number("floor_gflops") * 1e9 * seconds - flops) < 1e-6 * flops)
    let passes = try number("forward_seconds") + number("backward_seconds")
    #expect(try abs(number("floor_ratio") - seconds / passes) < 1e-6 * seconds / passes)
  }

  // MARK: Memory

  @Test(arguments: [
    (["train", "--random-weights", "--model", model, "--batch", "1000000", "--length", "200000"], "--batch, --length"),
    (["train", "--random-weights", "--model", model, "--batch", "1000000", "--length", "200000", "--recompute"], "--batch, --length"),
    (
      ["train", "--random-weights", "--model", model, "--batch", "1000000", "--length", "100000", "--adapters", "2"],
      "--batch, --length, --adapters"
    ), (["ffn", "--tokens", "1000000", "--hidden", "1000000", "--channels", "64", "--rank", "1"], "--tokens, --channels, --hidden"),
    (["ffn", "--experts", "1000000", "--channels", "4096"], "--rank, --experts"),
  ]) func whatTheMachineCannotHoldIsRefused(_ arguments: [String], _ input: String) throws {
    let result = try Program.run(["bench"] + arguments)
    #expect(result.code == 3 && result.error.contains("error: \(input): found sizes that need"), "\(result.code) \(result.error)")
  }

  @Test func keysAndValuesThatTheMachineCannotHoldAreRefused() throws {
    let scratch = try Scratch()
    let model = try scratch.golden("topk").appending(path: "model")
    let arguments = ["bench", "generate", "--random-weights", "--model", model.path, "--batch", "1000000", "--prompt", "900000"]
    let more = try Program.run(arguments)
    #expect(more.code == 2 && more.error.contains("900064 tokens together, and the model has"), "\(more.code) \(more.error)")
    let file = model.appending(path: "config.json")
    var members = try #require(JSON(contentsOf: file.path).objectValue)
    members["max_position_embeddings"] = 1_000_000
    try AtomicFile.write(JSON.object(members).serialized(), to: file.path)
    let result = try Program.run(arguments)
    #expect(
      result.code == 3 && result.error.contains("--batch, --prompt, --tokens: found sizes that need"), "\(result.code) \(result.error)")
  }

  /// What is refused for its size needs at least that much: it is what the pool holds, and less.
  @Test func theLeastOfAStepIsNoMoreThanItTakes() throws {
    let golden = URL(filePath: #filePath).deletingLastPathComponent().path + "/../../Fixtures/golden"
    var count = 0
    for name in Folder.names(in: golden) where FileManager.default.fileExists(atPath: "\(golden)/\(name)/model/config.json") {
      for more in [[], ["--recompute"], ["--evaluation", "perExpert"], ["--evaluation", "sharedGateUp"], ["--method", "lora"]] {
        let command = try BenchTrainCommand.parse(
          ["--random-weights", "--model", "\(golden)/\(name)/model", "--batch", "40", "--length", "16", "--rank", "1"] + more)
        let backend = CPUFloat(threads: 1)
        let decoder = try command.bench.decoder(command.recipe, on: backend)
        let before = backend.counters.poolBytes
        let step = TrainingStep(
          decoder, keys: [RandomKey(seed: 1)], clips: [0], recomputes: command.recipe.recomputes ? .all : .none, on: backend)
        try step.warmUp([command.randomBatch(decoder.configuration.vocabulary, on: backend)])
        let least = 4 * 40 * 16 * decoder.configuration.leastOfTraining(recomputes: command.recipe.recomputes)
        let taken = Double(backend.counters.poolBytes - before)
        #expect(least <= taken && taken < 8 * least, "\(name) \(more): \(taken) bytes, \(taken / least) of the least")
        count += 1
      }
    }
    #expect(count >= 10)
  }

  @Test func theLeastOfGenerationIsNoMoreThanItTakes() throws {
    for method in ["none", "lora", "mixlora"] {
      let command = try BenchGenerateCommand.parse(["--random-weights", "--model", Self.model, "--method", method])
      for (prompt, tokens) in [(20, 1), (20, 2), (1, 40), (40, 10)] {
        let backend = CPUFloat(threads: 1)
        let decoder = try command.bench.decoder(command.recipe, on: backend)
        let before = backend.counters.poolBytes
        let state = DecodingState(decoder, sequences: 300, on: backend)
        for count in [prompt] + Array(repeating: 1, count: tokens - 1) {
          _ = try state.logits(after: Array(repeating: Array(repeating: 1, count: count), count: 300), Run(backend))
        }
        let least = 4 * 300 * decoder.configuration.leastOfGeneration(prompt: prompt, tokens: tokens)
        let taken = Double(backend.counters.poolBytes - before)
        #expect(least <= taken && taken < 10 * least, "\(method), \(prompt) and \(tokens): \(taken) bytes, \(taken / least) of the least")
      }
    }
  }

  // MARK: Beside peers

  private static let python = ProcessInfo.processInfo.environment["PATH"]?.split(separator: ":").map { $0 + "/python3" }.first {
    FileManager.default.isExecutableFile(atPath: $0)
  }

  @Test(.enabled(if: python != nil, "python3 is not there")) func peersSayWhatTheyCannotMeasure() throws {
    let scratch = try Scratch()
    let bench = URL(filePath: #filePath).deletingLastPathComponent().path + "/../../Fixtures/bench/peers.py"
    for (arguments, words) in [
      ([scratch.url.path], "config.json: No such file or directory; expected a folder with config.json"),
      ([Self.model, "--rounds", "0"], "--rounds is 0, expected at least 1"),
    ] {
      let result = try Program.run([bench] + arguments, program: Self.python)
      #expect(result.code == 2 && result.error.contains(words) && !result.error.contains("Traceback"), "\(result.code) \(result.error)")
    }
  }

  // MARK: Chrome traces

  private struct Event {
    let name, kind: String
    let thread: Int
    let start, end: Double  // microseconds

    init(_ json: JSON) throws {
      #expect(json.objectValue?.keys == ["name", "cat", "ph", "ts", "dur", "pid", "tid"])
      #expect(json["ph"]?.stringValue == "X")
      (name, kind) = (try #require(json["name"]?.stringValue), try #require(json["cat"]?.stringValue))
      thread = try #require(json["tid"]?.intValue)
      start = try #require(json["ts"]?.doubleValue)
      end = start + (try #require(json["dur"]?.doubleValue))
      #expect(start >= 0 && end >= start)
    }

    func contains(_ other: Event) -> Bool { start <= other.start + 1e-6 && other.end <= end + 1e-6 }  // µs + µs is rounded
  }

  /// What a benchmark prints, and its trace, on two threads.
  private func profiled(_ arguments: [String]) throws -> (printed: JSON, events: [Event]) {
    let scratch = try Scratch()
    let file = scratch.url.path + "/trace.json"
    let printed = try object(arguments + ["--threads", "2", "--phases", "--json", "--profile", file])
    return (printed, try events(of: file))
  }

  /// The events of a trace: every one lies in a step, every layer in a phase where there are phases, what a thread did in the operation of
  /// that name; events of one kind do not overlap, and they come in the order of their beginning.
  private func events(of file: String) throws -> [Event] {
    let events = try #require(JSON(contentsOf: file).arrayValue).map { try Event($0) }
    func all(_ kind: String) -> [Event] { events.filter { $0.kind == kind } }
    #expect(events.map(\.start) == events.map(\.start).sorted())
    #expect(events.first?.start == 0 && events.first?.kind == "step")
    for event in events { #expect(all("step").contains { $0.contains(event) }, "\(event) lies in no step") }
    for layer in all("layer") where !all("phase").isEmpty { #expect(all("phase").contains { $0.contains(layer) }, "\(layer)") }
    for (_, row) in Dictionary(grouping: events, by: { "\($0.kind) \($0.thread)" }) {
      for (one, next) in zip(row, row.dropFirst()) { #expect(one.end <= next.start + 1e-6, "\(one) and \(next)") }
    }
    let operations = all("operation")
    for part in all("part") { #expect(operations.contains { $0.name == part.name && $0.contains(part) }, "\(part)") }
    #expect(Set(events.map(\.thread)).isSubset(of: [1, 2]) && Set(events.filter { $0.kind != "part" }.map(\.thread)) == [1])
    return events
  }

  /// The operations' times in a trace are those that `--phases` adds up. Every end is rounded to a nanosecond.
  private func expectSums(_ seconds: JSON?, _ events: [Event]) throws {
    let operations = events.filter { $0.kind == "operation" }
    let names = Dictionary(grouping: operations, by: \.name)
    let printed = try #require(seconds?.objectValue)
    #expect(Set(printed.keys) == Set(names.keys) && printed.count > 5)
    for (name, calls) in names {
      let sum = calls.reduce(0) { $0 + ($1.end - $1.start) } * 1e-6
      let expected = try #require(printed[name]?.doubleValue)
      #expect(abs(sum - expected) <= 1.01e-9 * Double(calls.count + 1), "\(name): \(sum), printed \(expected)")
    }
  }

  @Test(arguments: [[], ["--recompute"], ["--adapters", "2"]]) func theTraceOfAStepAddsUpToItsPhases(_ more: [String]) throws {
    let (printed, events) = try profiled(Self.train + more)
    try expectSums(printed["operation_seconds"], events)
    #expect(events.filter { $0.kind == "phase" }.map(\.name) == ["forward", "backward", "optimizer"])
    let blocks = ["model.layers.0", "model.layers.1"]
    let forward = ["model.embed_tokens"] + blocks + ["model.norm"]
    #expect(events.filter { $0.kind == "layer" }.map(\.name) == forward + ["lm_head"] + forward.reversed())
  }

  @Test func theTraceOfGenerationHasAPromptAndAToken() throws {
    let (printed, events) = try profiled([
      "bench", "generate", "--random-weights", "--model", Self.model, "--prompt", "6", "--tokens", "2", "--repeats", "1",
    ])
    let steps = events.filter { $0.kind == "step" }
    #expect(steps.map(\.name) == ["prompt", "token"])
    #expect(events.filter { $0.kind == "layer" && steps[1].contains($0) }.map(\.name).suffix(2) == ["model.norm", "lm_head"])
    try expectSums(printed["prompt_operation_seconds"], events.filter { steps[0].contains($0) })
    #expect((printed["token_operation_seconds"]?.objectValue?.count ?? 0) > 5)
  }

  @Test func theTraceOfABlockAddsUpToItsPhases() throws {
    let (printed, events) = try profiled([
      "bench", "ffn", "--channels", "128", "--hidden", "512", "--tokens", "256", "--repeats", "1", "--rank", "2", "--experts", "4",
    ])
    try expectSums(printed["operation_seconds"], events)
    #expect(events.filter { $0.kind == "phase" }.map(\.name) == ["forward", "backward"])
    #expect(events.filter { $0.kind == "part" }.count > 50)
  }

  // MARK: What does nothing

  @Test(arguments: [
    (["train", "--method", "lora", "--experts", "4"], 2, "--experts does nothing: --method lora has no experts"),
    (["train", "--method", "lora", "--top-k", "1"], 2, "--top-k does nothing"),
    (["train", "--method", "lora", "--evaluation", "perExpert"], 2, "--evaluation does nothing"),
    (["train", "--adapters", "1000000"], 3, "--adapters, --rank, --experts: found"),
    (["generate", "--experts", "4"], 2, "--experts does nothing: --method none has no adapter"),
    (["generate", "--rank", "4"], 2, "--rank does nothing"),
    (["generate", "--method", "lora", "--top-k", "1"], 2, "--top-k does nothing: --method lora has no experts"),
    (["generate", "--method", "mixlora", "--dropout", "0"], 2, "--dropout does nothing: generation is no training"),
    (["ffn", "--recompute"], 2, "--recompute does nothing"),
  ]) func anOptionThatDoesNothingIsRefusedByName(_ arguments: [String], _ code: Int32, _ words: String) throws {
    let result = try Program.run(["bench"] + arguments + (arguments[0] == "ffn" ? [] : ["--random-weights", "--model", Self.model]))
    #expect(result.code == code && result.error.contains(words), "\(result.code) \(result.error)")
  }

  // MARK: Several adapters, single operations

  @Test func adaptersTogetherAreComparedWithTheSameOnesAlone() throws {
    let found = try object(["bench", "adapters", "--rounds", "1", "--json"] + Self.train.dropFirst(2))
    func number(_ key: String) throws -> Double { try #require(found[key]?.doubleValue) }
    #expect(found["adapters"]?.intValue == 2)
    let (alone, together) = (try number("peak_resident_bytes_alone"), try number("peak_resident_bytes_together"))
    let saved = alone - together / 2
    #expect(try abs(number("saved_bytes_per_adapter") - saved) < 1)
    for member in found.objectValue?.members ?? [] where member.key.contains("bytes") {
      #expect(member.value.intValue != nil, "\(member.key): \(member.value.serialized())")
    }
    #expect(try abs(number("saved_share_of_base") - saved / (number("base_bytes") / 2)) < 1e-9)
    #expect(try abs(number("speedup") - number("tokens_per_second_together") / number("tokens_per_second_alone")) < 1e-9)
    #expect(try number("base_bytes") < alone && alone > 1e6)
  }

  /// A number that `bench train` does not print is no 0.
  @Test func aNumberThatIsNotThereIsNamed() throws {
    let whole: [String: JSON] = ["tokens_per_second": 3.5, "peak_resident_bytes": 9000, "base_bytes": 5000]
    func run(_ members: [String: JSON]) throws -> BenchAdaptersCommand.Run {
      var object = JSON.Object()
      for (key, value) in members { object[key] = value }
      return try BenchAdaptersCommand.Run(.object(object))
    }
    #expect(try run(whole).base == 5000)
    for key in whole.keys {
      for value in [nil, 0, "many"] as [JSON?] {
        let error = try #require(#expect(throws: CheckpointError.self) { try run(whole.merging([key: value ?? .null]) { $1 }) })
        #expect("\(error)".contains(key) && "\(error)".contains("a number > 0"), "\(error)")
      }
      let missing = try #require(#expect(throws: CheckpointError.self) { try run(whole.filter { $0.key != key }) })
      #expect("\(missing)".contains("\(key)") && "\(missing)".contains("nothing"), "\(missing)")
    }
  }

  @Test func adaptersSayWhatIsWrongWithTheirOptions() throws {
    let adapters = ["bench", "adapters"] + Self.train.dropFirst(2)
    for (arguments, code, words) in [
      (adapters + ["--count", "1"], 2, "--count is 1, expected 2 to 1000000"), (adapters + ["--rankk", "2"], 2, "--rankk"),
      (["bench", "adapters", "--count", "2"], 2, "--model"), (["bench", "adapters", "--model", "/nowhere"], 3, "/nowhere"),
      (adapters + ["--length", "1"], 2, "--length is 1, expected 2 to 1000000"),
      (adapters + ["--adapters", "1"], 2, "--adapters is for `bench train`; here --count"),
      (adapters + ["--phases"], 2, "--phases is for `bench train`"), (adapters + ["--profile", "x"], 2, "--profile is for `bench train`"),
    ] {
      let result = try Program.run(arguments)
      #expect(result.code == code && result.error.contains(words), "\(arguments): \(result.code) \(result.error)")
    }
  }

  @Test func everyHotOperationIsHeldAgainstTheFirstOfItsKind() throws {
    let scratch = try Scratch()
    let trace = scratch.url.path + "/trace.json"
    let result = try Program.run([
      "bench", "ops", "--channels", "64", "--hidden", "96", "--tokens", "24", "--length", "10", "--rank", "2", "--repeats", "2",
      "--threads", "2", "--json", "--profile", trace,
    ])
    #expect(result.code == 0, "\(result.error)")
    let lines = try result.output.split(separator: "\n").map { try JSON(parsing: String($0), file: "output") }
    #expect(lines.count == 30)
    #expect(Set(lines.map { $0["operation"]?.stringValue }).count == lines.count)
    let events = try events(of: trace)
    let steps = events.filter { $0.kind == "step" }
    #expect(steps.map(\.name) == lines.map { $0["operation"]?.stringValue })
    for step in steps { #expect(events.contains { $0.kind == "operation" && step.contains($0) }, "\(step)") }
    for (kind, key) in [("copy", "gigabytes_per_second"), ("gemm", "gflops")] {
      let first = try #require(lines.first { $0[key] != nil })
      #expect(first["operation"]?.stringValue?.hasPrefix(kind) == true)
      func of(_ key: String) throws -> Double { try #require(first[key]?.doubleValue) }
      let best = try of(key) * of("seconds") / of("seconds_least")  // what it reached when it was fastest
      for line in lines {
        guard let rate = line[key]?.doubleValue else { continue }
        let share = try #require(line["share"]?.doubleValue)
        #expect(rate > 0 && abs(share - rate / best) <= 1e-9 * share, "\(line)")
      }
    }
    for line in lines {
      let seconds = try ["seconds_least", "seconds", "seconds_most"].map { try #require(line[$0]?.doubleValue) }
      #expect(0 < seconds[0] && seconds == seconds.sorted(), "\(line)")
    }
  }
}
