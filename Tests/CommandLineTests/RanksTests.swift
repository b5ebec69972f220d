import Checkpoints
import Foundation
import Testing

/// `mpirun -n R mixlora …`: what R ranks make is what one process makes, byte for byte.
@Suite(.serialized, .enabled(if: MPILauncher.isThere, MPILauncher.why)) struct RanksTests {
  /// A MixLoRA with dropout, eight parts a step (three in the last of each epoch), gradients that are clipped, and validation.
  private func arguments(_ folder: URL, _ out: String, _ extra: String...) -> [String] {
    [
      "train", "--model", folder.path + "/model", "--data", folder.path + "/data.jsonl", "--out", folder.path + "/" + out, "--threads", "1",
      "--rank", "2", "--alpha", "4", "--experts", "3", "--dropout", "0.1", "--batch", "8", "--accumulate", "8", "--clip", "0.05", "--lr",
      "0.01", "--steps", "6", "--save-every", "2", "--validation", folder.path + "/data.jsonl", "--evaluate-every", "3",
    ] + extra
  }

  /// Every file below a folder; lines of metrics without what a clock had a part in.
  private func files(_ folder: String) throws -> [String: Data] {
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

  private func expectSame(_ folder: String, as whole: String, _ what: String) throws {
    let (found, expected) = (try files(folder), try files(whole))
    #expect(found.keys.sorted() == expected.keys.sorted(), "\(what)")
    for (name, data) in expected { #expect(found[name] == data && !data.isEmpty, "\(what): \(name)") }
  }

  @Test(arguments: MPILauncher.all) func anyNumberOfRanksMakesTheSameFiles(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let alone = try Program.run(arguments(folder, "1"))
    #expect(alone.code == 0, "\(alone.error)")
    for ranks in [2, 3, 4] {
      let result = try launcher.run(arguments(folder, "\(ranks)"), ranks: ranks)
      #expect(result.code == 0 && result.output.contains("\(ranks) ranks"), "\(result.output) \(result.error)")
      try expectSame(folder.path + "/\(ranks)", as: folder.path + "/1", "\(ranks) ranks")
    }
    // Without clipping other steps would have been made; without the sum over parts, too.
    let lines = try String(contentsOfFile: folder.path + "/1/metrics.jsonl", encoding: .utf8).split(separator: "\n")
    let norms = try lines.compactMap { try JSON(parsing: String($0), file: "metrics")["grad_norm"]?.doubleValue }
    #expect(norms.count == 6 && norms.allSatisfy { $0 > 0.05 }, "\(norms)")
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
        adapter("swaps", 2, 2, ["routing_strategy": "mixlora", "num_experts": 3]),
        adapter("plain", 1, 3, ["optim": "sgd", "momentum": 0.9]),
      ],
    ]
    let file = folder.path + "/moe_peft.json"
    try AtomicFile.write(configuration.serialized(), to: file)
    func arguments(_ out: String) -> [String] {
      ["train", "--model", folder.path + "/model", "--config", file, "--out", folder.path + "/" + out, "--threads", "1"]
    }
    let alone = try Program.run(arguments("1"))
    #expect(alone.code == 0, "\(alone.error)")
    for ranks in [2, 3] {
      let result = try launcher.run(arguments("\(ranks)"), ranks: ranks)
      #expect(result.code == 0, "\(result.error)")
      try expectSame(folder.path + "/\(ranks)", as: folder.path + "/1", "\(ranks) ranks")
    }
    #expect(try files(folder.path + "/1").keys.contains("swaps/adapter_model.safetensors"))
  }

  @Test(arguments: MPILauncher.all) func evaluationIsSharedOut(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let data = (0..<40).map { #"{"prompt":"what is \#($0)?","completion":" \#($0) is \#($0 + 1)."}"# }
    try AtomicFile.write(data.joined(separator: "\n"), to: folder.path + "/many.jsonl")
    let evaluate = ["evaluate", "--model", folder.path + "/model", "--data", folder.path + "/many.jsonl", "--json", "--threads", "1"]
    let alone = try Program.run(evaluate)
    #expect(alone.code == 0 && alone.output.contains("perplexity"), "\(alone.error)")
    for ranks in [2, 3] { #expect(try launcher.run(evaluate, ranks: ranks).output == alone.output, "\(ranks) ranks") }
  }

  @Test(arguments: MPILauncher.all) func aStoppedRunGoesOnOnAnotherNumberOfRanks(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    func arguments(_ out: String) -> [String] { self.arguments(folder, out, "--keep", "100", "--resume").map { $0 == "6" ? "200" : $0 } }
    #expect(try Program.run(arguments("whole")).code == 0)
    let out = folder.path + "/broken"
    func newest() -> Int {
      ((try? FileManager.default.contentsOfDirectory(atPath: out)) ?? []).compactMap { Int($0.replacing("checkpoint-", with: "")) }.max()
        ?? 0
    }
    var hits = 0
    for (ranks, signal, victim) in [(3, SIGKILL, 1), (2, SIGTERM, 1), (4, SIGKILL, 0)] {
      let before = newest()
      let process = try launcher.start(arguments("broken"), ranks: ranks)
      while process.isRunning, newest() < before + 2 { usleep(1000) }
      let running = MPILauncher.ranks(of: process, with: out)  // looking takes a while
      while process.isRunning, newest() < before + 6 { usleep(1000) }
      for (rank, id) in running where rank == victim { kill(id, signal) }
      process.waitUntilExit()
      if process.terminationStatus == 0 { break }  // on a quick machine the run may be over before its processes are found
      hits += 1
      if signal == SIGTERM { #expect([0, 130].contains(process.terminationStatus), "\(process.terminationStatus)") }
    }
    #expect(hits > 0, "no signal came in time")
    let rest = try launcher.run(arguments("broken"), ranks: 2)
    #expect(rest.code == 0, "\(rest.error)")
    // Of a run that was told to stop the last step was saved as well.
    var found = try files(out)
    let expected = try files(folder.path + "/whole")
    for name in found.keys where expected[name] == nil && name.hasPrefix("checkpoint-") { found[name] = nil }
    #expect(found.keys.sorted() == expected.keys.sorted())
    for (name, data) in expected { #expect(found[name] == data, "\(name)") }
  }
}
