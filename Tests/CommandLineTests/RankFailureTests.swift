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
    let result = try launcher.start([one, two].map { (1, [Program.url.path] + $0) }).result()
    expect(result, 2, "rank 0 has 1 threads, rank 1 has 2 threads")
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

  /// A run without a near end that has saved twice, and its ranks' processes.
  private func start(
    _ launcher: MPILauncher, _ folder: URL, _ out: String, steps: Int = 100_000, ranks: Int, _ extra: [String] = []
  ) throws -> (job: RankJob, processes: [Int: Int32]) {
    let arguments = RanksTests.arguments(folder, out, steps: steps, "--keep", "1000")
    let job = try launcher.start(arguments + extra, ranks: ranks)
    try job.wait("two saves") { RanksTests.newest(folder.path + "/" + out) >= 4 }
    let processes = job.ranks
    try #require(processes.keys.sorted() == Array(0..<ranks), "\(job.said)")
    return (job, processes)
  }

  @Test(arguments: MPILauncher.all, [0, 1]) func aRankThatStopsAnsweringIsNamedByTheOthers(_ launcher: MPILauncher, _ victim: Int) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    // Long samples, so that ranks wait before an exchange: who waits in the middle of one knows less.
    let line = #"{"prompt":"what is it?","completion":"\#(String(repeating: " it is one.", count: 15))"}"#
    try AtomicFile.write(Array(repeating: line, count: 16).joined(separator: "\n"), to: folder.path + "/data.jsonl")
    for attempt in 1...4 {
      let (job, processes) = try start(launcher, folder, "run-\(attempt)", ranks: 3, ["--rank-timeout", "7"])
      let process = try #require(processes[victim])
      kill(process, SIGSTOP)
      let others = processes.filter { $0.key != victim }.values
      try job.wait("the end of the others", limit: 30) { others.allSatisfy { kill($0, 0) != 0 } }
      kill(process, SIGKILL)
      #expect(try job.result(limit: 30).code != 0)
      for _ in 0..<50 where others.contains(where: { kill($0, 0) == 0 }) { Thread.sleep(forTimeInterval: 0.1) }  // until they are buried
      #expect(others.allSatisfy { kill($0, 0) != 0 }, "\(job.said)")
      // What the others say: Open MPI wakes the stopped rank before it ends it, and that one has waited for them as well.
      let lines = job.said.split(separator: "\n").filter {
        $0.contains(" of 3 waited 7 s (--rank-timeout) for ") && !$0.contains("rank \(victim) of 3 waited ")
      }
      #expect(!lines.isEmpty, "\(job.said)")
      // In the middle of an exchange one may wait for another that waits, and of a function of all nobody knows.
      let isKnown = !lines.contains { $0.contains("exchange: it") || $0.contains("to which all had come") }
      if !isKnown, attempt < 4 { continue }
      let name = "for rank \(victim) (process \(process) on "
      #expect(isKnown ? lines.allSatisfy { $0.contains(name) } : lines.contains { $0.contains(name) }, "\(job.said)")
      return
    }
  }

  @Test(arguments: MPILauncher.all) func whereMPIDoesNotStartTheWaitEnds(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    // MPI starts when all processes of the job ask it to, and sleep does not.
    let arguments = RanksTests.arguments(folder, "run", "--rank-timeout", "2")
    let job = try launcher.start([(1, [Program.url.path] + arguments), (1, ["/bin/sleep", "60"])])
    expect(try job.result(limit: 50), 5, "rank 0 of 2 waited 2 s (--rank-timeout) for MPI to start")
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/run"))
  }

  @Test(arguments: MPILauncher.all) func aKilledRankCanBeToldFromWhatTheLauncherSays(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let (job, processes) = try start(launcher, folder, "run", ranks: 2)
    let process = try #require(processes[1])
    kill(process, SIGKILL)
    #expect(try job.result(limit: 60).code != 0)
    if launcher.kind == .openMPI {
      #expect(job.said.contains("rank 1 with PID") && job.said.contains("signal 9"), "\(job.said)")
    } else {
      #expect(job.said.contains("rank 1 is process \(process) on ") && job.said.contains("PID \(process) RUNNING AT"), "\(job.said)")
    }
  }

  @Test(arguments: MPILauncher.all) func whenOneRankIsToldToStopAllSaveAndSayWhich(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let (job, processes) = try start(launcher, folder, "run", ranks: 3)
    kill(try #require(processes[2]), SIGTERM)
    let result = try job.result(limit: 60)
    expect(result, 130, "interrupted after step \(RanksTests.newest(folder.path + "/run")) (rank 2 was told to stop)")
  }

  /// Of a run that fails to write: more than fit the small disk.
  private static let steps = 100

  /// Expects a run whose first rank fails to write to end on all ranks with the error, the last checkpoint whole: another number of ranks
  /// goes on from it to the bits of the unbroken run.
  private func expectLastCheckpointWhole(_ job: RankJob, _ folder: URL, _ out: String, _ launcher: MPILauncher, _ part: String) throws {
    expect(try job.result(limit: 60), 5, "error: ", part)
    let last = RanksTests.newest(folder.path + "/" + out)
    #expect(last >= 4)
    try FileManager.default.copyItem(atPath: folder.path + "/" + out, toPath: folder.path + "/copy")
    func arguments(_ out: String) -> [String] { RanksTests.arguments(folder, out, steps: Self.steps, "--keep", "1000", "--resume") }
    #expect(try Program.run(arguments("whole")).code == 0)
    let rest = try launcher.run(arguments("copy"), ranks: 3)
    #expect(rest.code == 0, "\(rest.error)")
    try RanksTests.expectSame(folder.path + "/copy", as: folder.path + "/whole", "after \(last) steps")
  }

  #if os(Linux)
    @Test(arguments: MPILauncher.all) func aFileOfTheFirstRankThatMayGrowNoLargerEndsAll(_ launcher: MPILauncher) throws {
      let scratch = try Scratch()
      let folder = try TrainingCase.folder(scratch)
      let (job, processes) = try start(launcher, folder, "run", steps: Self.steps, ranks: 2)
      // Set while the run goes on: MPI's own start needs larger files than a run writes.
      let limit = try Program.run(["--pid", "\(try #require(processes[0]))", "--fsize=2048"], program: "/usr/bin/prlimit")
      #expect(limit.code == 0, "\(limit.error)")
      try expectLastCheckpointWhole(job, folder, "run", launcher, "File too large")
    }
  #endif

  @Test(.enabled(if: SmallDisk.canBeMade, "no right to mount a small file system here"), arguments: MPILauncher.all)
  func aFullDiskOfTheFirstRankEndsAll(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let disk = try #require(SmallDisk(folder.path + "/disk"))
    let (job, _) = try start(launcher, folder, "disk/run", steps: Self.steps, ranks: 2)
    try expectLastCheckpointWhole(job, folder, "disk/run", launcher, "No space left")
    try FileManager.default.removeItem(atPath: disk.path + "/run")
  }

  @Test(arguments: MPILauncher.all) func anErrorOfOneRankEndsAllWithItsCode(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let one = TrainingCase.arguments(folder, "run", "--steps", "100000")
    let missing = one.map { $0.hasSuffix("data.jsonl") ? "/nowhere/data.jsonl" : $0 }
    let result = try launcher.start([one, missing].map { (1, [Program.url.path] + $0) }).result()
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
