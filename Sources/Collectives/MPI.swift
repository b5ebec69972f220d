import CMPI
import Platform
import Synchronization

/// The ranks of an MPI job. The library is opened when this is made, never linked.
public final class MPI: Collective {
  /// The number of this process in the job.
  public let rank: Int
  /// How many processes it has.
  public let size: Int
  /// What the library says of itself.
  public let version: String
  /// Where each rank runs: its process and machine.
  public var places: [String] { watchdog.places }
  let watchdog: Watchdog
  private let counted = Mutex(Traffic())

  /// Opens the library and joins the job.
  ///
  /// - Parameters:
  ///   - launch: who started this process.
  ///   - library: the library's file; nil for those that fit the launcher.
  ///   - limit: seconds that a rank may wait for the others, here too; then the process says for whom and ends with exit code 5.
  /// - Throws: `CollectiveError` that lists what was tried, or says that the library is not the launcher's.
  public init(_ launch: Launch, library: String? = nil, limit: Int = 1800) throws {
    let whole = launch.size.map { " of \($0)" } ?? ""
    try Self.open(library.map { [$0] } ?? Self.libraries(of: launch.launcher), for: launch, as: "rank \(launch.rank)\(whole)")
    version = Self.text { mpi_version($0, $1) }
    watchdog = Watchdog(limit: limit, who: "rank \(launch.rank)\(whole)")
    var (rank, size): (Int32, Int32) = (0, 1)
    let code = watchdog.watching(for: .start) { mpi_start(&rank, &size) }
    guard code == 0 else { throw CollectiveError("MPI_Init of \(version) fails: \(Self.text { mpi_explain(code, $0, $1) })") }
    (self.rank, self.size) = (Int(rank), Int(size))
    // Another MPI's library finds no launcher and believes that it is alone: n runs would write the same files.
    guard launch.size ?? self.size == self.size else {
      throw CollectiveError(
        "\(launch.evidence) says \(launch.size ?? 0) processes, \(version) sees \(self.size): the library is not the launcher's; name the "
          + "right one in MIXLORA_MPI.")
    }
    watchdog.places = try texts("process \(POSIX.processID) on \(POSIX.hostName)")
  }

  /// Names under which a launcher's library is known, then the one that any MPI 5.0 has.
  private static func libraries(of launcher: Launch.Launcher) -> [String] {
    #if canImport(Darwin)
      let (open, mpich, standard) = (["libmpi.40.dylib"], ["libmpi.12.dylib"], ["libmpi_abi.1.dylib"])
    #else
      let (open, mpich, standard) = (["libmpi.so.40"], ["libmpi.so.12", "libmpich.so.12"], ["libmpi_abi.so.1"])
    #endif
    return (launcher == .hydra ? mpich : open) + standard
  }

  private static func open(_ libraries: [String], for launch: Launch, as who: String) throws {
    var reasons: [String] = []
    for library in libraries {
      var isOpen = false
      let why = text { isOpen = mpi_open(library, $0, $1) }
      if isOpen { return }
      reasons.append(why)
    }
    throw CollectiveError(
      "this process is \(who) (\(launch.evidence)), but no MPI library could be opened: \(reasons.joined(separator: "; ")). Install the "
        + "launcher's (Debian: \(launch.launcher == .hydra ? "libmpich12" : "libopenmpi3")) or name its file in MIXLORA_MPI.")
  }

  private static func text(_ fill: (UnsafeMutablePointer<CChar>, Int) -> Void) -> String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 1024) { buffer in
      buffer.initialize(repeating: 0)
      guard let base = buffer.baseAddress else { return "" }
      fill(base, buffer.count)
      return String(cString: base)
    }
  }

  // MARK: Calls

  /// Calls a function of MPI to which all ranks have come.
  func call(_ name: String, of partner: Int? = nil, sending bytes: Int, _ body: () -> Int32) throws {
    let start = POSIX.seconds
    let partner = partner ?? (size == 2 ? 1 - rank : nil)
    let code = watchdog.watching(for: partner.map { .partner($0) } ?? .all(of: name), body)
    let seconds = POSIX.seconds - start
    counted.withLock { ($0.bytes, $0.seconds) = ($0.bytes + bytes, $0.seconds + seconds) }
    try check(code, name)
  }

  /// Counts seconds of waiting.
  func waited(_ seconds: Double) { counted.withLock { $0.waiting += seconds } }

  func check(_ code: Int32, _ name: String) throws {
    guard code != 0 else { return }
    throw CollectiveError("\(name) fails on rank \(rank) of \(size): \(Self.text { mpi_explain(code, $0, $1) })")
  }

  /// What went through calls so far.
  public var traffic: Traffic { counted.withLock { $0 } }

  /// See ``Collective/barrier()``.
  public func barrier() throws { _ = try rollCall() }

  /// See ``Collective/minimum(_:)``.
  public func minimum(_ value: Int64) throws -> Int64 { try rollCall(value) }

  /// See ``Collective/broadcast(_:from:)``.
  public func broadcast(_ bytes: UnsafeMutableRawBufferPointer, from root: Int) throws {
    _ = try rollCall()
    for start in stride(from: 0, to: bytes.count, by: 1 << 30) {
      let part = UnsafeMutableRawBufferPointer(rebasing: bytes[start..<min(start + 1 << 30, bytes.count)])
      try call("MPI_Bcast", sending: rank == root ? part.count : 0) {
        mpi_broadcast(part.baseAddress, Int32(part.count), MPI_TYPE_BYTE, Int32(root))
      }
    }
  }

  /// See ``Collective/sum(_:)``.
  public func sum(_ values: [Double]) throws -> [Double] {
    guard !values.isEmpty else { return [] }
    _ = try rollCall()
    var sums = values
    try call("MPI_Allreduce", sending: 8 * values.count) {
      mpi_allreduce(values, &sums, Int32(values.count), MPI_TYPE_DOUBLE)
    }
    return sums
  }

  /// Waits for the others and takes leave.
  public func leave() {
    guard (try? barrier()) != nil else { return }
    _ = watchdog.watching(for: .all(of: "MPI_Finalize"), mpi_finish)
  }

  /// Ends the job.
  public func abort(_ code: Int32) { watchdog.watching(for: .all(of: "MPI_Abort")) { mpi_abort(code) } }
}
