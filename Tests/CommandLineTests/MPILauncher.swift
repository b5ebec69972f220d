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
    try run([(ranks, arguments)], environment: environment)
  }

  /// The same with other arguments for some of them.
  func run(_ parts: [(ranks: Int, arguments: [String])], environment: [String] = []) throws -> Program.Result {
    try Program.run(environment + [path] + options + Self.programs(parts), program: "/usr/bin/env")
  }

  /// Starts ranks and returns at once; what they and their launcher say goes to a file.
  func start(_ arguments: [String], ranks: Int, said: URL? = nil) throws -> Process {
    let process = Process()
    process.executableURL = URL(filePath: path)
    process.arguments = options + Self.programs([(ranks, arguments)])
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    if let said {
      try Data().write(to: said)
      let file = try FileHandle(forWritingTo: said)
      (process.standardOutput, process.standardError) = (file, file)
    }
    process.standardInput = FileHandle.nullDevice
    try process.run()
    return process
  }

  private static func programs(_ parts: [(ranks: Int, arguments: [String])]) -> [String] {
    Array(parts.map { ["-n", "\($0.ranks)", Program.url.path] + $0.arguments }.joined(separator: [":"]))
  }

  /// The processes of the program whose arguments have a text, and the rank of each; those that are younger than their launcher, since
  /// to look at all takes longer than a short run.
  static func ranks(of launcher: Process, with text: String) -> [(rank: Int, process: Int32)] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return names.compactMap { Int32($0) }.filter { $0 > launcher.processIdentifier }.compactMap { process in
      func words(_ file: String) -> [String] {
        let data = FileManager.default.contents(atPath: "/proc/\(process)/\(file)") ?? Data()
        return data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
      }
      let arguments = words("cmdline")
      guard arguments.first?.hasSuffix("/mixlora") == true, arguments.contains(text) else { return nil }
      for name in ["OMPI_COMM_WORLD_RANK=", "PMI_RANK="] {
        if let word = words("environ").first(where: { $0.hasPrefix(name) }), let rank = Int(word.dropFirst(name.count)) {
          return (rank, process)
        }
      }
      return nil
    }
  }
}
