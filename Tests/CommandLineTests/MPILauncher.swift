import Foundation
import Testing

/// An mpirun of this machine. Where there is none, tests that need it are skipped and counted.
struct MPILauncher: CustomTestStringConvertible, Sendable {
  enum Kind: String, CaseIterable, Sendable {
    case openMPI = "Open MPI"
    case mpich = "MPICH"
  }

  let kind: Kind
  let path: String
  var testDescription: String { kind.rawValue }

  /// Those that are installed: Debian has both beside each other, under names of their own.
  static let all: [MPILauncher] = {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map(String.init)
    return Kind.allCases.compactMap { kind in
      let names = kind == .openMPI ? ["mpirun.openmpi", "mpirun"] : ["mpirun.mpich", "mpirun"]
      for path in folders.flatMap({ folder in names.map { "\(folder)/\($0)" } }) where FileManager.default.isExecutableFile(atPath: path) {
        guard let said = try? Program.run(["--version"], program: path).output else { continue }
        if said.contains(kind == .openMPI ? "Open MPI" : "HYDRA") { return MPILauncher(kind: kind, path: path) }
      }
      return nil
    }
  }()
  static let isThere = !all.isEmpty
  static let why: Comment = "no MPI: not run. Neither Open MPI's nor MPICH's mpirun is installed (Debian: openmpi-bin, mpich)"

  /// What the launcher is called with, up to its programs.
  var options: [String] { kind == .openMPI ? ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"] : [] }

  /// Starts so many ranks of the program and waits for them.
  func run(_ arguments: [String], ranks: Int, environment: [String] = []) throws -> Program.Result {
    try start([(ranks, [Program.url.path] + arguments)], environment: environment).result()
  }

  /// Starts ranks of the program and returns at once.
  func start(_ arguments: [String], ranks: Int) throws -> RankJob {
    try start([(ranks, [Program.url.path] + arguments)])
  }

  /// Starts so many ranks of each program.
  func start(_ parts: [(ranks: Int, command: [String])], environment: [String] = []) throws -> RankJob {
    try RankJob(path, options + parts.map { ["-n", "\($0.ranks)"] + $0.command }.joined(separator: [":"]), environment: environment)
  }
}
