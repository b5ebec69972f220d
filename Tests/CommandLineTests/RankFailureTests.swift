import Checkpoints
import Foundation
import Testing

/// What several ranks say, and how they end, when something is wrong: every rank, with an exit code that says why.
@Suite(.serialized, .enabled(if: MPILauncher.isThere, MPILauncher.why)) struct RankFailureTests {
  private func expect(_ result: Program.Result, _ code: Int32, _ parts: String...) {
    #expect(result.code == code, "\(result.code): \(result.error)")
    for part in parts { #expect(result.error.contains(part), "\(part) is not in: \(result.error)") }
  }

  @Test(arguments: MPILauncher.all) func ranksWithoutWorkAreRefused(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let result = try launcher.run(TrainingCase.arguments(folder, "run"), ranks: 3)
    expect(result, 2, "--accumulate is 2, but 3 ranks share out")
    #expect(result.error.components(separatedBy: "--accumulate is 2").count == 2, "the first rank says it, and it alone")
  }

  @Test(arguments: MPILauncher.all) func ranksOfDifferentThreadsAreRefused(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let one = TrainingCase.arguments(folder, "run")
    let two = one.indices.map { $0 > 0 && one[$0 - 1] == "--threads" ? "2" : one[$0] }
    expect(try launcher.run([(1, one), (1, two)]), 2, "rank 0 has 1 threads, rank 1 has 2 threads")
  }

  @Test(arguments: MPILauncher.all) func withoutALibraryAllThatWasTriedIsListed(_ launcher: MPILauncher) throws {
    let result = try launcher.run(
      ["evaluate", "--model", "m", "--data", "d"], ranks: 2, environment: ["MIXLORA_MPI=/nowhere/libmpi.so"])
    expect(result, 5, "/nowhere/libmpi.so", "of 2", "MIXLORA_MPI", launcher.kind == .mpich ? "libmpich12" : "libopenmpi3")
  }

  @Test(.enabled(if: MPILauncher.all.count == 2, "only one MPI is installed"), arguments: MPILauncher.all)
  func anotherMPIsLibraryIsRefused(_ launcher: MPILauncher) throws {
    let other = launcher.kind == .mpich ? "libmpi.so.40" : "libmpich.so.12"
    let result = try launcher.run(["evaluate", "--model", "m", "--data", "d"], ranks: 2, environment: ["MIXLORA_MPI=\(other)"])
    expect(result, 5, "says 2 processes", "sees 1", "MIXLORA_MPI")
  }

  /// A run without end that has saved twice, its ranks' processes, and the file of what they say.
  private func start(_ launcher: MPILauncher, _ folder: URL, _ out: String, ranks: Int, _ extra: String...) throws -> (
    launched: Process, ranks: [Int: Int32], said: URL
  ) {
    let said = folder.appending(path: "said-by-\(UUID().uuidString)")
    let arguments = RanksTests.arguments(folder, out, ["--keep", "1000", "--resume"] + extra).map { $0 == "6" ? "100000" : $0 }
    let process = try launcher.start(arguments, ranks: ranks, said: said)
    let folder = folder.path + "/" + out
    while process.isRunning, RanksTests.newest(folder) < 4 { usleep(1000) }
    let found = MPILauncher.ranks(of: process, with: folder)
    let text = try String(contentsOf: said, encoding: .utf8)
    try #require(found.map(\.rank).sorted() == Array(0..<ranks), "\(text)")
    return (process, Dictionary(uniqueKeysWithValues: found.map { ($0.rank, $0.process) }), said)
  }

  @Test(arguments: MPILauncher.all, [0, 1]) func aRankThatStopsAnsweringIsNamedByTheOthers(_ launcher: MPILauncher, _ victim: Int) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    // Long samples, so that ranks wait before an exchange: who waits in the middle of one knows less.
    let line = #"{"prompt":"what is it?","completion":"\#(String(repeating: " it is one.", count: 40))"}"#
    try AtomicFile.write(Array(repeating: line, count: 16).joined(separator: "\n"), to: folder.path + "/data.jsonl")
    for attempt in 1...4 {
      let (launched, ranks, said) = try start(launcher, folder, "run-\(attempt)", ranks: 3, "--rank-timeout", "7")
      let process = try #require(ranks[victim])
      kill(process, SIGSTOP)
      let others = ranks.filter { $0.key != victim }.values
      var looks = 0  // of a hundredth of a second each, or more
      while others.contains(where: { kill($0, 0) == 0 }), looks < 2500 { (looks, _) = (looks + 1, usleep(10_000)) }
      if launched.isRunning { launched.terminate() }
      for id in ranks.values { kill(id, SIGKILL) }
      launched.waitUntilExit()
      let text = try String(contentsOf: said, encoding: .utf8)
      #expect(looks < 2500 && launched.terminationStatus != 0, "\(looks) looks: \(text)")
      let lines = text.split(separator: "\n").filter { $0.contains(" of 3 waited 7 s (--rank-timeout) for ") }
      #expect(!lines.isEmpty, "\(text)")
      // In the middle of an exchange one may wait for another that waits, and of a function of all nobody knows.
      let isKnown = !lines.contains { $0.contains("exchange: it") || $0.contains("to which all had come") }
      if !isKnown, attempt < 4 { continue }
      let name = "for rank \(victim) (process \(process) on "
      #expect(isKnown ? lines.allSatisfy { $0.contains(name) } : lines.contains { $0.contains(name) }, "\(text)")
      return
    }
  }

  @Test(arguments: MPILauncher.all) func whereMPIDoesNotStartTheWaitEnds(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    // MPI starts when all processes of the job ask it to, and sleep does not.
    let arguments = RanksTests.arguments(folder, "run", ["--rank-timeout", "2"])
    let words = launcher.options + ["-n", "1", Program.url.path] + arguments + [":", "-n", "1", "/bin/sleep", "60"]
    expect(try Program.run(words, program: launcher.path), 5, "rank 0 of 2 waited 2 s (--rank-timeout) for MPI to start")
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/run"))
  }

  @Test(arguments: MPILauncher.all) func aKilledRankCanBeToldFromWhatTheLauncherSays(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let (launched, ranks, said) = try start(launcher, folder, "run", ranks: 2)
    let process = try #require(ranks[1])
    kill(process, SIGKILL)
    launched.waitUntilExit()
    let text = try String(contentsOf: said, encoding: .utf8)
    if launcher.kind == .openMPI {
      #expect(text.contains("rank 1 with PID") && text.contains("signal 9"), "\(text)")
    } else {
      #expect(text.contains("rank 1 is process \(process) on ") && text.contains("PID \(process) RUNNING AT"), "\(text)")
    }
    #expect(launched.terminationStatus != 0)
  }

  @Test(arguments: MPILauncher.all) func whenOneRankIsToldToStopAllSaveAndSayWhich(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let (launched, ranks, said) = try start(launcher, folder, "run", ranks: 3)
    kill(try #require(ranks[2]), SIGTERM)
    launched.waitUntilExit()
    let text = try String(contentsOf: said, encoding: .utf8)
    #expect(launched.terminationStatus == 130, "\(launched.terminationStatus)")
    #expect(text.contains("interrupted after step \(RanksTests.newest(folder.path + "/run")) (rank 2 was told to stop)"), "\(text)")
  }

  /// Lets a run's first rank fail to write, and expects all to end with the error, the last checkpoint whole: another number of ranks goes
  /// on from it to the bits of the unbroken run.
  private func expectLastCheckpointWhole(
    _ launched: Process, _ said: URL, _ folder: URL, _ out: String, _ launcher: MPILauncher, _ part: String
  )
    throws
  {
    launched.waitUntilExit()
    let text = try String(contentsOf: said, encoding: .utf8)
    #expect(launched.terminationStatus == 5 && text.contains("error: ") && text.contains(part), "\(launched.terminationStatus) \(text)")
    let last = RanksTests.newest(folder.path + "/" + out)
    #expect(last >= 4)
    try FileManager.default.copyItem(atPath: folder.path + "/" + out, toPath: folder.path + "/copy")
    func arguments(_ out: String) -> [String] {
      RanksTests.arguments(folder, out, ["--keep", "1000", "--resume"]).map { $0 == "6" ? "\(last + 4)" : $0 }
    }
    #expect(try Program.run(arguments("whole")).code == 0)
    let rest = try launcher.run(arguments("copy"), ranks: 3)
    #expect(rest.code == 0, "\(rest.error)")
    try RanksTests.expectSame(folder.path + "/copy", as: folder.path + "/whole", "after \(last) steps")
  }

  #if os(Linux)
    @Test(arguments: MPILauncher.all) func aFileOfTheFirstRankThatMayGrowNoLargerEndsAll(_ launcher: MPILauncher) throws {
      let scratch = try Scratch()
      let folder = try TrainingCase.folder(scratch)
      let (launched, ranks, said) = try start(launcher, folder, "run", ranks: 2)
      // Set while the run goes on: MPI's own start needs larger files than a run writes.
      let limit = try Program.run(["--pid", "\(try #require(ranks[0]))", "--fsize=2048"], program: "/usr/bin/prlimit")
      #expect(limit.code == 0, "\(limit.error)")
      try expectLastCheckpointWhole(launched, said, folder, "run", launcher, "File too large")
    }
  #endif

  @Test(.enabled(if: SmallDisk.canBeMade, "no right to mount a small file system here"), arguments: MPILauncher.all)
  func aFullDiskOfTheFirstRankEndsAll(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let disk = try #require(SmallDisk(folder.path + "/disk"))
    let (launched, _, said) = try start(launcher, folder, "disk/run", ranks: 2)
    try expectLastCheckpointWhole(launched, said, folder, "disk/run", launcher, "No space left")
    try FileManager.default.removeItem(atPath: disk.path + "/run")
  }

  @Test(arguments: MPILauncher.all) func anErrorOfOneRankEndsAllWithItsCode(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let one = TrainingCase.arguments(folder, "run", "--steps", "100000")
    let missing = one.map { $0.hasSuffix("data.jsonl") ? "/nowhere/data.jsonl" : $0 }
    let result = try launcher.run([(1, one), (1, missing)])
    expect(result, 3, "rank 1: error: ", "/nowhere/data.jsonl")
  }
}

/// Launchers that bring no MPI are told from those that do; none of this needs one.
@Suite struct OtherLauncherTests {
  @Test(arguments: [
    (["WORLD_SIZE=2", "RANK=0", "MASTER_ADDR=localhost"], "torchrun"), (["SLURM_STEP_NUM_TASKS=2", "SLURM_PROCID=0"], "srun --mpi=pmix"),
  ])
  func aLauncherWithoutMPIIsRefusedWithWhatToUse(_ environment: [String], _ part: String) throws {
    let result = try Program.run(environment + [Program.url.path, "evaluate", "--model", "m", "--data", "d"], program: "/usr/bin/env")
    #expect(result.code == 2 && result.error.contains(part) && result.error.contains("start with"), "\(result.code) \(result.error)")
  }
}
