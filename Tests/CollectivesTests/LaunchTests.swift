import Collectives
import Testing

@Suite struct LaunchTests {
  private func launch(_ environment: [String: String]) -> Launch { Launch { environment[$0] } }

  @Test func everyLauncherIsKnownByItsEnvironment() {
    let openMPI = launch([
      "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_RANK": "3",
    ])
    #expect(openMPI.launcher == .openMPI && openMPI.rank == 3 && openMPI.size == 4 && openMPI.localSize == 2)
    let hydra = launch(["PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALNRANKS": "2"])
    #expect(hydra.launcher == .hydra && hydra.rank == 1 && hydra.size == 2 && hydra.localSize == 2 && hydra.evidence == "PMI_SIZE")
    let slurm = launch(["PMIX_RANK": "1", "SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "1"])
    #expect(slurm.launcher == .openMPI && slurm.rank == 1 && slurm.size == 3 && slurm.evidence == "SLURM_STEP_NUM_TASKS")
    let unknown = launch(["PMIX_RANK": "1"])
    #expect(unknown.size == nil && unknown.evidence == "PMIX_RANK", "only MPI knows")
    let torchrun = launch(["WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"])
    #expect(torchrun.launcher == .torchrun && torchrun.rank == 1 && torchrun.size == 2)
    let bare = launch(["SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"])
    #expect(bare.launcher == .bareSlurm && bare.rank == 1)
  }

  @Test func aProcessOfItsOwnIsNotLaunched() {
    for environment in [
      [:], ["OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"], ["PMI_SIZE": "1"], ["SLURM_NTASKS": "8", "SLURM_PROCID": "0"],
      ["SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"], ["WORLD_SIZE": "2", "RANK": "0"], ["PMI_SIZE": "two"],
    ] { #expect(launch(environment).launcher == .nobody, "\(environment)") }
  }
}
