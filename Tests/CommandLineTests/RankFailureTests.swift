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

  @Test(arguments: MPILauncher.all) func aRankThatStopsAnsweringEndsAll(_ launcher: MPILauncher) throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let arguments = TrainingCase.arguments(folder, "run", "--steps", "100000", "--rank-timeout", "3")
    let process = try launcher.start(arguments, ranks: 2)
    let checkpoint = folder.path + "/run/checkpoint-3"
    while process.isRunning, !FileManager.default.fileExists(atPath: checkpoint) { usleep(1000) }
    let ranks = MPILauncher.ranks(of: process, with: folder.path + "/run")
    try #require(ranks.map(\.rank).sorted() == [0, 1])
    for (rank, id) in ranks where rank == 1 { kill(id, SIGSTOP) }
    let start = Date()
    while kill(ranks[0].process, 0) == 0 || kill(ranks[1].process, 0) == 0, Date().timeIntervalSince(start) < 30 { usleep(10_000) }
    let seconds = Date().timeIntervalSince(start)
    #expect(seconds > 2 && seconds < 20, "\(seconds) s")
    if process.isRunning { process.terminate() }
    for (_, id) in ranks { kill(id, SIGKILL) }
    process.waitUntilExit()
    #expect(process.terminationStatus != 0)
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
