import Checkpoints
import Foundation
import Testing

/// `mpirun -n R mixlora …`: what R ranks make is what one process makes, byte for byte.
@Suite(.serialized, .enabled(if: MPILauncher.isThere, MPILauncher.why)) struct RanksTests {
  /// A MixLoRA with dropout, eight parts a step (three in the last of each epoch), gradients that are clipped, and validation.
  static func arguments(_ folder: URL, _ out: String, steps: Int = 6, _ extra: String...) -> [String] {
    [
      "train", "--model", folder.path + "/model", "--data", folder.path + "/data.jsonl", "--out", folder.path + "/" + out, "--threads", "1",
      "--rank", "2", "--alpha", "4", "--experts", "3", "--dropout", "0.1", "--batch", "8", "--accumulate", "8", "--clip", "0.05", "--lr",
      "0.01", "--steps", "\(steps)", "--save-every", "2", "--validation", folder.path + "/data.jsonl", "--evaluate-every", "3",
    ] + extra
  }

  /// Every file below a folder; lines of metrics without what a clock had a part in.
  private static func files(_ folder: String) throws -> [String: Data] {
    var found: [String: Data] = [:]
    for name in try FileManager.default.subpathsOfDirectory(atPath: folder) {
      guard let data = FileManager.default.contents(atPath: "\(folder)/\(name)") else { continue }
      found[name] = data
      guard name.hasSuffix("metrics.jsonl") else { continue }
      let lines = try String(decoding: data, as: UTF8.self).split(separator: "\n").map { line in
        var members = try #require(JSON(parsing: String(line), file: name).objectValue)
        members["tokens_per_second"] = nil
        return JSON.object(members).serialized()
      }
      found[name] = Data(lines.joined(separator: "\n").utf8)
    }
    return found
  }

  static func expectSame(_ folder: String, as whole: String, _ what: String) throws {
    let (found, expected) = (try files(folder), try files(whole))
    #expect(found.keys.sorted() == expected.keys.sorted(), "\(what)")
    for (name, data) in expected { #expect(found[name] == data && !data.isEmpty, "\(what): \(name)") }
  }

  /// The norms of a run's gradients, step by step.
  private static func norms(_ folder: String) throws -> [Double] {
    try String(contentsOfFile: folder + "/metrics.jsonl", encoding: .utf8).split(separator: "\n").compactMap {
      try JSON(parsing: String($0), file: "metrics")["grad_norm"]?.doubleValue
    }
  }

  /// The newest step that a complete checkpoint has.
  static func newest(_ folder: String) -> Int {
    ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).compactMap { Int($0.replacing("checkpoint-", with: "")) }.max()
      ?? 0
  }

  @Test(arguments: MPILauncher.all) func anyNumberOfRanksMakesTheSameFiles(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let alone = try Program.run(Self.arguments(folder, "1"))
    #expect(alone.code == 0, "\(alone.error)")
    for ranks in [2, 3, 4] {
      let result = try launcher.run(Self.arguments(folder, "\(ranks)"), ranks: ranks)
      #expect(result.code == 0 && result.output.contains("\(ranks) ranks"), "\(result.output) \(result.error)")
      try Self.expectSame(folder.path + "/\(ranks)", as: folder.path + "/1", "\(ranks) ranks")
    }
    let norms = try Self.norms(folder.path + "/1")
    #expect(norms.count == 6 && norms.allSatisfy { $0 > 0.05 }, "every step is clipped: \(norms)")
  }

  @Test(arguments: MPILauncher.all) func severalAdaptersAreSharedOutToo(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    func adapter(_ name: String, _ micro: Int, _ epochs: Int, _ more: KeyValuePairs<String, JSON>) -> JSON {
      var adapter = JSON.Object()
      let targets: JSON = ["q_proj", "up_proj", "down_proj"]
      for (key, value) in [
        ("name", JSON(name)), ("data", JSON(folder.path + "/data.jsonl")), ("lr", 0.01), ("batch_size", 8),
        ("micro_batch_size", JSON(micro)),
        ("num_epochs", JSON(epochs)), ("r", 2), ("lora_alpha", 4), ("lora_dropout", 0.1), ("target_modules", targets),
      ] + more.map({ ($0.key, $0.value) }) { adapter[key] = value }
      return .object(adapter)
    }
    let configuration: JSON = [
      "cutoff_len": 64, "save_step": 2,
      "lora": [
        adapter("swaps", 1, 2, ["routing_strategy": "mixlora", "num_experts": 3]),
        adapter("plain", 2, 3, ["optim": "sgd", "momentum": 0.9]),
      ],
    ]
    let file = folder.path + "/moe_peft.json"
    try AtomicFile.write(configuration.serialized(), to: file)
    func arguments(_ out: String) -> [String] {
      [
        "train", "--model", folder.path + "/model", "--config", file, "--out", folder.path + "/" + out, "--threads", "1", "--clip", "0.05",
      ]
    }
    let alone = try Program.run(arguments("1"))
    #expect(alone.code == 0, "\(alone.error)")
    for ranks in [2, 3, 4] {
      let result = try launcher.run(arguments("\(ranks)"), ranks: ranks)
      #expect(result.code == 0, "\(result.error)")
      try Self.expectSame(folder.path + "/\(ranks)", as: folder.path + "/1", "\(ranks) ranks")
    }
    for name in ["swaps", "plain"] {
      #expect(try Self.files(folder.path + "/1").keys.contains("\(name)/adapter_model.safetensors"))
      #expect(try Self.norms(folder.path + "/1/\(name)").allSatisfy { $0 > 0.05 }, "every step is clipped")
    }
  }

  @Test(arguments: MPILauncher.all) func evaluationIsSharedOut(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let data = (0..<40).map { #"{"prompt":"what is \#($0)?","completion":" \#($0) is \#($0 + 1)."}"# }
    try AtomicFile.write(data.joined(separator: "\n"), to: folder.path + "/many.jsonl")
    // Answers of any length over the model's 60 characters: two batches a task and adapter, and more of the candidates.
    for (task, line) in [
      ("boolq", { #"{"question":"is \#($0) so \#(String(repeating: "very ", count: $0 % 9))big?","answer":\#($0 % 3 == 0)}"# }),
      (
        "piqa",
        {
          #"{"goal":"count to \#($0)","sol1":"\#(String(repeating: "one ", count: $0 % 7 + 1))","sol2":"to \#($0)","label":\#($0 % 2)}"#
        }
      ),
    ] as [(String, (Int) -> String)] {
      try FileManager.default.createDirectory(atPath: "\(folder.path)/tasks/\(task)", withIntermediateDirectories: true)
      try AtomicFile.write((0..<150).map(line).joined(separator: "\n"), to: "\(folder.path)/tasks/\(task)/test.jsonl")
    }
    for (what, lines) in [("many.jsonl", 1), ("tasks", 2)] {
      for adapters in [[], ["adapter", "adapter"]] {
        let arguments =
          ["evaluate", "--model", folder.path + "/model", "--data", folder.path + "/" + what, "--json", "--threads", "1"]
          + adapters.flatMap { ["--adapter", folder.path + "/" + $0] }
        let alone = try Program.run(arguments)
        #expect(alone.code == 0 && alone.output.split(separator: "\n").count == lines * max(1, adapters.count), "\(alone.error)")
        for ranks in [2, 3] {
          let result = try launcher.run(arguments, ranks: ranks)
          #expect(result.code == 0 && result.output == alone.output, "\(what), \(adapters), \(ranks) ranks: \(result.error)")
        }
      }
    }
  }

  /// Kills of ranks, each followed by as many ranks or fewer or more; MIXLORA_RANK_KILLS says how many (3).
  @Test(arguments: MPILauncher.all) func killedRanksGoOnOnAnotherNumberOfRanksToTheSameBits(_ launcher: MPILauncher) throws {
    let wanted = ProcessInfo.processInfo.environment["MIXLORA_RANK_KILLS"].flatMap { Int($0) } ?? 3
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    func arguments(_ out: String) -> [String] { Self.arguments(folder, out, steps: 200, "--keep", "100", "--resume") }
    #expect(try Program.run(arguments("whole")).code == 0)
    let expected = try Self.files(folder.path + "/whole")

    var random = SplitMix64(seed: 16)
    func draw(_ numbers: ClosedRange<Int>) -> Int { numbers.lowerBound + Int(Double(numbers.count) * random.fraction()) }
    var (rounds, last, kills) = (0, 0, [String]())
    while kills.count < wanted, rounds < 10 + wanted {
      rounds += 1
      let out = folder.path + "/round-\(rounds)"
      var isFinished = false
      while !isFinished {
        let ranks = [2, 3, 4].filter { $0 != last }[draw(0...1)]
        last = ranks
        let job = try launcher.start(arguments("round-\(rounds)"), ranks: ranks)
        let before = kills.count
        if before < wanted {
          let (first, victim, saves) = (Self.newest(out), draw(0...ranks - 1), draw(1...4))
          try job.wait("the first save") { Self.newest(out) >= first + 2 }
          let process = job.ranks[victim]  // looking takes a while
          try job.wait("save \(saves)") { Self.newest(out) >= first + 2 * saves }
          usleep(UInt32(20_000 * random.fraction()))
          if let process { kill(process, SIGKILL) }
          if try job.result().code != 0 { kills.append("\(victim) of \(ranks) after \(Self.newest(out))") }
        }
        let result = try job.result()
        job.end()  // a launcher may end before the last of its ranks, which holds the folder
        isFinished = result.code == 0
        try #require(isFinished || kills.count > before, "\(ranks) ranks end with \(result.code): \(result.error)")
      }
      let found = try Self.files(out)
      #expect(found.keys.sorted() == expected.keys.sorted(), "round \(rounds): something is missing or was left over")
      for (name, data) in expected { #expect(found[name] == data, "round \(rounds): \(name)") }
    }
    print("\(launcher.kind.rawValue): \(kills.count) kills in \(rounds) runs: \(kills.joined(separator: ", "))")
    #expect(kills.count >= wanted)
  }
}
