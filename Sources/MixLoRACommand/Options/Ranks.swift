import ArgumentParser
import CPUBackend
import Collectives
import Platform
import Synchronization

/// What the ranks of a run take.
struct RankOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Under mpirun or srun: seconds that a rank waits for the others before it ends with an error.", valueName: "seconds"))
  var rankTimeout = 1800

  func validate() throws {
    try requireRange(["--rank-timeout": rankTimeout])
  }
}

/// The ranks that this process is one of: what a launcher such as mpirun started together. Without one it is alone.
enum Ranks {
  private static let launch = Launch()
  private static let joined = Mutex<any Collective>(Solo())

  /// This rank and the others; alone before ``join(_:)``.
  static var current: any Collective { joined.withLock { $0 } }

  /// The number of this process among those that its launcher started.
  static var number: Int { [.openMPI, .hydra].contains(launch.launcher) ? launch.rank : 0 }

  /// Whether it is the one that writes and prints.
  static var isFirst: Bool { number == 0 }

  /// Joins the others, if there are any.
  ///
  /// - Throws: `UsageError` for launchers that bring no MPI, `CollectiveError`.
  static func join(_ options: RankOptions) throws {
    let size = launch.size ?? 0
    switch launch.launcher {
    case .nobody: return
    case .torchrun:
      throw UsageError(
        "this is process \(launch.rank) of \(size) of torchrun, which brings no MPI; start with mpirun -n \(size) mixlora …, or under "
          + "SLURM with srun --mpi=pmix.")
    case .bareSlurm:
      throw UsageError(
        "this is task \(launch.rank) of \(size) of srun, which was not told of MPI; start with srun --mpi=pmix (Open MPI) or "
          + "--mpi=pmi2 (MPICH).")
    case .openMPI, .hydra:
      let ranks = try MPI(launch, library: POSIX.environment("MIXLORA_MPI"), limit: options.rankTimeout)
      joined.withLock { $0 = ranks }
      // Hydra names a process that was killed by its number alone; Open MPI's mpirun says which rank it was.
      if launch.launcher == .hydra {
        writeNote("\(ranks.places.enumerated().map { "rank \($0) is \($1)" }.joined(separator: ", "))")
      }
    }
  }

  /// The threads that all compute with: what was given, else what the first rank knows, else this process's cores.
  ///
  /// - Throws: `UsageError` where ranks differ in what results depend on.
  static func agreedThreads(_ common: CommonOptions, kept: Int? = nil) throws -> Int {
    let ranks = current
    guard ranks.size > 1 else { return common.threads ?? kept ?? common.threadCount }
    let known = Int(try ranks.broadcast("\(kept ?? 0)")) ?? 0
    let threads = common.threads ?? (known > 0 ? known : common.threadCount)
    for (what, own, cure) in [
      ("\(threads) threads", "\(threads)", "give --threads, and let the launcher leave so many cores to each (Open MPI: --bind-to none)"),
      ("OpenBLAS's kernels for \(OpenBLAS.coreType)", OpenBLAS.coreType, "set OPENBLAS_CORETYPE to kernels that all processors run"),
      ("mixlora \(version)", version, "install one version everywhere"),
    ] {
      let found = try ranks.texts(own)
      let said = try ranks.texts(what)
      guard let other = found.indices.first(where: { found[$0] != found[0] }) else { continue }
      throw UsageError("rank 0 has \(said[0]), rank \(other) has \(said[other]), and results depend on it; \(cure).")
    }
    if let local = launch.localSize, local * threads > POSIX.presentCores {
      let cure = threads > 1 ? "; --threads gives each fewer" : ""
      writeNote("\(local * threads) threads of \(local) ranks share \(POSIX.presentCores) cores of this machine\(cure)")
    }
    return threads
  }
}
