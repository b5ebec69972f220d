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
  private let watchdog: Watchdog
  private let sent = Atomic<Int>(0)
  private let nanoseconds = Atomic<Int>(0)

  /// Opens the library and joins the job.
  ///
  /// - Parameters:
  ///   - launch: who started this process.
  ///   - library: the library's file; nil for those that fit the launcher.
  ///   - limit: seconds that a call may wait for the others, this one included; then the process ends with exit code 5.
  /// - Throws: `CollectiveError` that lists what was tried, or says that the library is not the launcher's.
  public init(_ launch: Launch, library: String? = nil, limit: Int = 1800) throws {
    let whole = launch.size.map { " of \($0)" } ?? ""
    try Self.open(library.map { [$0] } ?? Self.libraries(of: launch.launcher), for: launch, as: "rank \(launch.rank)\(whole)")
    version = Self.text { mpi_version($0, $1) }
    watchdog = Watchdog(limit: limit, who: "rank \(launch.rank)\(whole)")
    var (rank, size): (Int32, Int32) = (0, 1)
    let code = watchdog.watching { mpi_start(&rank, &size) }
    guard code == 0 else { throw CollectiveError("MPI_Init of \(version) fails: \(Self.text { mpi_explain(code, $0, $1) })") }
    (self.rank, self.size) = (Int(rank), Int(size))
    // Another MPI's library finds no launcher and believes that it is alone: n runs would write the same files.
    guard launch.size ?? self.size == self.size else {
      throw CollectiveError(
        "\(launch.evidence) says \(launch.size ?? 0) processes, \(version) sees \(self.size): the library is not the launcher's; name the "
          + "right one in MIXLORA_MPI.")
    }
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

  /// Calls MPI; every call that waits for others goes through here.
  func call(_ name: String, sending bytes: Int, _ body: () -> Int32) throws {
    let start = POSIX.seconds
    let code = watchdog.watching(body)
    nanoseconds.add(Int((POSIX.seconds - start) * 1e9), ordering: .relaxed)
    sent.add(bytes, ordering: .relaxed)
    guard code != 0 else { return }
    throw CollectiveError("\(name) fails on rank \(rank) of \(size): \(Self.text { mpi_explain(code, $0, $1) })")
  }

  /// What went through calls so far.
  public var traffic: Traffic {
    var traffic = Traffic()
    (traffic.bytes, traffic.seconds) = (sent.load(ordering: .relaxed), Double(nanoseconds.load(ordering: .relaxed)) * 1e-9)
    return traffic
  }

  /// See ``Collective/barrier()``.
  public func barrier() throws { try call("MPI_Barrier", sending: 0) { mpi_barrier() } }

  /// See ``Collective/broadcast(_:from:)``.
  public func broadcast(_ bytes: UnsafeMutableRawBufferPointer, from root: Int) throws {
    for start in stride(from: 0, to: bytes.count, by: 1 << 30) {
      let part = UnsafeMutableRawBufferPointer(rebasing: bytes[start..<min(start + 1 << 30, bytes.count)])
      try call("MPI_Bcast", sending: rank == root ? part.count : 0) {
        mpi_broadcast(part.baseAddress, Int32(part.count), MPI_TYPE_BYTE, Int32(root))
      }
    }
  }

  /// See ``Collective/minimum(_:)``.
  public func minimum(_ value: Int64) throws -> Int64 {
    var (value, least) = (value, Int64(0))
    try call("MPI_Allreduce", sending: 8) { mpi_allreduce(&value, &least, 1, MPI_TYPE_INT64, MPI_OPERATION_MINIMUM) }
    return least
  }

  /// See ``Collective/sum(_:)``.
  public func sum(_ values: [Double]) throws -> [Double] {
    guard !values.isEmpty else { return [] }
    var sums = values
    try call("MPI_Allreduce", sending: 8 * values.count) {
      mpi_allreduce(values, &sums, Int32(values.count), MPI_TYPE_DOUBLE, MPI_OPERATION_SUM)
    }
    return sums
  }

  /// Waits for the others and takes leave.
  public func leave() { _ = watchdog.watching { mpi_barrier() == 0 ? mpi_finish() : 0 } }

  /// Ends the job.
  public func abort(_ code: Int32) { mpi_abort(code) }
}
