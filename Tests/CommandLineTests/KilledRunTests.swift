import Checkpoints
import Foundation
import Testing

/// Runs of `mixlora train` that end before their time: killed, told to stop, out of space. What is left must be whole, and a run that
/// goes on from it must end in the bits of the unbroken one.
@Suite struct KilledRunTests {
  private static let steps = 96
  private static let saveEvery = 4

  /// A run of many quick steps and saves.
  private func arguments(_ folder: URL, _ out: String) -> [String] {
    var arguments = TrainingCase.arguments(folder, out, "--steps", "\(Self.steps)", "--resume")
    if let index = arguments.firstIndex(of: "--save-every") { arguments[index + 1] = "\(Self.saveEvery)" }
    return arguments
  }

  private func start(_ arguments: [String]) throws -> Process {
    let process = Process()
    process.executableURL = Program.url
    process.arguments = arguments
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    process.standardInput = FileHandle.nullDevice
    try process.run()
    return process
  }

  /// Seconds that a wait may take: a step takes milliseconds, but the machine may be busy with others.
  private static let limit = 600.0

  private struct WaitedTooLong: Error, CustomStringConvertible {
    let description: String
  }

  /// Waits until it is so, or the run has ended; a run that hangs is ended.
  private func wait(_ process: Process, for what: String, until isSo: () -> Bool = { false }) throws {
    let end = Date() + Self.limit
    while process.isRunning, !isSo() {
      guard Date() < end else {
        kill(process.processIdentifier, SIGKILL)
        throw WaitedTooLong(description: "waited \(Self.limit) s for \(what) of \(process.arguments ?? [])")
      }
      usleep(300)
    }
  }

  private func names(_ folder: String) -> [String] { (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] }

  /// What a run has begun to write.
  private func unfinished(_ folder: String) -> Set<String> { Set(names(folder).filter { $0.hasPrefix(".") }) }

  /// The newest step that a complete checkpoint has.
  private func newest(_ folder: String) -> Int { names(folder).compactMap { Int($0.replacing("checkpoint-", with: "")) }.max() ?? 0 }

  /// The lines of a run's metrics, without what a clock had a part in.
  private func metrics(_ folder: String) throws -> [JSON] {
    try String(contentsOfFile: folder + "/metrics.jsonl", encoding: .utf8).split(separator: "\n").map { line in
      var members = try #require(JSON(parsing: String(line), file: "metrics").objectValue)
      members["tokens_per_second"] = nil
      return .object(members)
    }
  }

  private func expectSame(_ folder: String, as whole: String) throws {
    let checkpoint = "checkpoint-\(Self.steps)/"
    for file in ["adapter_model.safetensors", "adapter_config.json", checkpoint + "optimizer.safetensors", "loss.svg", "experts.svg"] {
      let (found, expected) = (
        try Data(contentsOf: URL(filePath: "\(folder)/\(file)")), try Data(contentsOf: URL(filePath: "\(whole)/\(file)"))
      )
      #expect(found == expected && !found.isEmpty, "\(file)")
    }
    #expect(try metrics(folder) == metrics(whole))
    #expect(names(folder).sorted() == names(whole).sorted(), "something was left over")
  }

  @Test func twentyKillsAtRandomMomentsChangeNoBit() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let whole = folder.path + "/whole"
    let begin = Date()
    #expect(try Program.run(arguments(folder, "whole")).code == 0)
    let seconds = Date().timeIntervalSince(begin)

    var random = SplitMix64(seed: 20)
    var (kills, inSave, inSteps, rounds) = (0, 0, 0, 0)
    // Whether a kill hits a save is chance, and on a busy machine a small one: until enough of both kinds were seen.
    func isEnough() -> Bool { kills >= 20 && inSave >= 3 && inSteps >= 1 }
    while !isEnough(), rounds < 40 {
      rounds += 1
      let out = folder.path + "/round-\(rounds)"
      while kills < 500 {
        let before = unfinished(out)
        let process = try start(arguments(folder, "round-\(rounds)"))
        if !isEnough() {
          // Either anywhere in the beginning, or anywhere in the steps after the next one or two saves: the pace is the run's own.
          let saves = Int(3 * random.fraction())
          let first = newest(out)
          try wait(process, for: "save \(saves)") { newest(out) >= first + saves }
          usleep(UInt32(1e6 * random.fraction() * (saves == 0 ? seconds / 2 : 1.5 * seconds * Double(Self.saveEvery) / Double(Self.steps))))
          if process.isRunning { kill(process.processIdentifier, SIGKILL) }
        }
        try wait(process, for: "the end")
        process.waitUntilExit()
        if process.terminationReason == .exit {
          #expect(process.terminationStatus == 0)
          break
        }
        kills += 1
        let isSaving = !unfinished(out).isSubset(of: before)
        inSave += isSaving ? 1 : 0
        inSteps += (1..<Self.steps).contains(newest(out)) && !isSaving ? 1 : 0
      }
      try #require(kills < 500, "500 kills, and no run came to its end")
      try expectSame(out, as: whole)
    }
    print(
      "\(kills) kills in \(rounds) runs: \(inSave) during a save, \(inSteps) between two saves, the others before the first or at the end")
    #expect(kills >= 20 && inSave >= 3 && inSteps >= 1, "\(kills) kills, \(inSave) during a save, \(inSteps) between two")
  }

  @Test(arguments: [SIGTERM, SIGINT]) func aRunThatIsToldToStopSavesTheStepItIsIn(_ number: Int32) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    #expect(try Program.run(arguments(folder, "whole")).code == 0)
    // On a busy machine a run may be at its last step when it is told.
    for attempt in 1...5 {
      let out = folder.path + "/run-\(attempt)"
      let process = try start(arguments(folder, "run-\(attempt)"))
      try wait(process, for: "step 2") { newest(out) >= 2 }
      kill(process.processIdentifier, number)
      try wait(process, for: "the end")
      process.waitUntilExit()
      #expect(process.terminationReason == .exit)
      guard newest(out) < Self.steps else { continue }
      #expect(process.terminationStatus == 130)
      #expect(try metrics(out).count == newest(out), "the last step was saved")
      #expect(try Program.run(arguments(folder, "run-\(attempt)")).code == 0)
      return try expectSame(out, as: folder.path + "/whole")
    }
    Issue.record("no run was stopped by signal \(number)")
  }

  /// What a run that was killed after so many steps leaves.
  private func broken(_ folder: URL, after step: Int) throws -> String {
    let out = folder.path + "/broken"
    let process = try start(arguments(folder, "broken"))
    try wait(process, for: "step \(step)") { newest(out) >= step }
    kill(process.processIdentifier, SIGKILL)
    try wait(process, for: "the end")
    process.waitUntilExit()
    #expect((step..<Self.steps).contains(newest(out)), "the kill came too late")
    return out
  }

  private func sizes(_ checkpoint: String) throws -> (adapter: Int, optimizer: Int) {
    func size(_ name: String) throws -> Int { try Data(contentsOf: URL(filePath: "\(checkpoint)/\(name)")).count }
    return (try size("adapter_model.safetensors"), try size("optimizer.safetensors"))
  }

  /// A save that cannot be finished: exit code 5, the file named, the older checkpoint as it was, nothing left over; with room again
  /// the run goes on to the bits of the unbroken one.
  private func expectFailedSave(_ folder: URL, _ result: Program.Result, _ out: String, step: Int, _ part: String) throws {
    #expect(result.code == 5 && result.error.contains(part), "\(result.code) \(result.error)")
    #expect(newest(out) == step)
    #expect(unfinished(out).isEmpty, "\(unfinished(out))")
  }

  @Test func aFileThatMayGrowNoLargerLeavesTheOlderCheckpointWhole() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    #expect(try Program.run(arguments(folder, "whole")).code == 0)
    let out = try broken(folder, after: 3)
    let step = newest(out)
    let size = try sizes("\(out)/checkpoint-\(step)")
    #expect(size.adapter < size.optimizer)
    // The limit counts 512 bytes: enough for the adapter, too little for the moments. Ignored, its signal makes the write fail.
    let blocks = (size.adapter + size.optimizer) / 2 / 512
    let shell = ["-c", #"trap "" XFSZ; ulimit -f \#(blocks) && exec "$@""#, "sh", Program.url.path] + arguments(folder, "broken")
    let result = try Program.run(shell, program: "/bin/sh")
    try expectFailedSave(folder, result, out, step: step, "optimizer.safetensors")
    #expect(result.error.contains("too large"), "\(result.error)")
    #expect(try Program.run(arguments(folder, "broken")).code == 0)
    try expectSame(out, as: folder.path + "/whole")
  }

  @Test(.enabled(if: SmallDisk.canBeMade, "no right to mount a small file system here"))
  func aFullDiskLeavesTheOlderCheckpointWhole() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let disk = try #require(SmallDisk(folder.path + "/disk"))
    #expect(try Program.run(arguments(folder, "whole")).code == 0)
    let killed = try broken(folder, after: 3)
    let out = disk.path + "/broken"
    for name in unfinished(killed) { try FileManager.default.removeItem(atPath: "\(killed)/\(name)") }
    try FileManager.default.copyItem(atPath: killed, toPath: out)
    let step = newest(out)
    let size = try sizes("\(out)/checkpoint-\(step)")
    // What is left takes the metrics and the adapter, not the moments.
    let filler = URL(filePath: disk.path + "/filler")
    var statistics = statvfs()
    #expect(statvfs(disk.path, &statistics) == 0)
    let free = Int(statistics.f_bavail) * Int(statistics.f_frsize)
    let room = size.adapter + size.optimizer / 2 + 12 * 1024
    try Data(count: free - room).write(to: filler)
    let result = try Program.run(arguments(folder, "disk/broken"))
    try expectFailedSave(folder, result, out, step: step, "checkpoint-\(step + Self.saveEvery)")
    #expect(result.error.contains("No space left"), "\(result.error)")
    try FileManager.default.removeItem(at: filler)
    #expect(try Program.run(arguments(folder, "disk/broken")).code == 0)
    try expectSame(out, as: folder.path + "/whole")
    try FileManager.default.removeItem(atPath: out)
  }
}
