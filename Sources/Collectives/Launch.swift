import Platform

/// Who started this process, as far as its environment tells; nothing is opened to find out.
public struct Launch: Equatable, Sendable {
  /// A launcher, and so the engine that it wants.
  public enum Launcher: Sendable {
    /// None: one process.
    case nobody
    /// Open MPI's mpirun, or `srun --mpi=pmix`.
    case openMPI
    /// Hydra, the mpirun of MPICH and Intel MPI, or `srun --mpi=pmi2`.
    case hydra
    /// torchrun, whose processes meet without MPI.
    case torchrun
    /// srun without a plug-in for MPI: every process would believe that it is alone.
    case bareSlurm
  }

  /// Who it was.
  public private(set) var launcher = Launcher.nobody
  /// The number of this process.
  public private(set) var rank = 0
  /// How many there are; nil where only MPI knows.
  public private(set) var size: Int? = 1
  /// How many of them are on this machine; nil where nobody says.
  public private(set) var localSize: Int?
  /// The variable that says how many there are, or at least that this is one of them.
  public private(set) var evidence = ""

  /// Reads the environment.
  ///
  /// SLURM_NTASKS and SLURM_PROCID stand in a plain batch script as well; SLURM_STEP_NUM_TASKS is srun's alone.
  public init(environment: (String) -> String? = POSIX.environment) {
    func number(_ name: String) -> Int? { environment(name).flatMap { Int($0) } }
    if let count = number("OMPI_COMM_WORLD_SIZE") {
      (launcher, size, evidence) = (.openMPI, count, "OMPI_COMM_WORLD_SIZE")
      (rank, localSize) = (number("OMPI_COMM_WORLD_RANK") ?? 0, number("OMPI_COMM_WORLD_LOCAL_SIZE"))
    } else if let count = number("PMI_SIZE") {
      (launcher, size, evidence) = (.hydra, count, "PMI_SIZE")
      (rank, localSize) = (number("PMI_RANK") ?? 0, number("MPI_LOCALNRANKS"))
    } else if let own = number("PMIX_RANK") {
      (launcher, rank, size) = (.openMPI, own, number("SLURM_STEP_NUM_TASKS"))
      evidence = size == nil ? "PMIX_RANK" : "SLURM_STEP_NUM_TASKS"
    } else if let count = number("WORLD_SIZE"), let own = number("RANK"), environment("MASTER_ADDR") != nil {
      (launcher, rank, size, evidence) = (.torchrun, own, count, "WORLD_SIZE")
      localSize = number("LOCAL_WORLD_SIZE")
    } else if let count = number("SLURM_STEP_NUM_TASKS"), let own = number("SLURM_PROCID") {
      (launcher, rank, size, evidence) = (.bareSlurm, own, count, "SLURM_STEP_NUM_TASKS")
    }
    if size == 1 { launcher = .nobody }
  }
}
