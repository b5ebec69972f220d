/// A backend that can say what it computes with and what its operations cost: what a benchmark asks for.
public protocol ProfilingBackend: Backend {
  /// What it computes with, for people: a processor's library and threads, or a GPU.
  var machineName: String { get }
  /// Threads of the host that compute.
  var threadCount: Int { get }
  /// The most bytes of memory that were in use: the process's, or the device's.
  var peakBytes: Int { get }
  /// Bytes of memory in use now: the process's, or the device's.
  var heldBytes: Int { get }
  /// Runs `body` once for every way in which the backend can run large products.
  func withEachWayOfProducts<R>(_ body: () throws -> R) rethrows -> [R]
  /// Begins to count calls and seconds of each operation. Where operations are enqueued, each is waited for meanwhile.
  func startProfile()
  /// Ends the count: every operation that was called, longest first.
  func stopProfile() -> [OperationTime]
}

/// What one operation took while a profile ran.
public struct OperationTime: Equatable, Sendable {
  /// Name of the operation in the protocol `Backend`.
  public let name: String
  /// Times that it was called.
  public let calls: Int
  /// Seconds in all calls.
  public let seconds: Double
}

/// Calls and seconds of each operation, as they are counted.
public struct Profile {
  private var times: [String: (calls: Int, seconds: Double)] = [:]

  /// Nothing counted.
  public init() {}

  /// A call of an operation, by its name or by the compiler's, with the labels of its arguments.
  public mutating func add(_ name: StaticString, seconds: Double) {
    let name = String("\(name)".prefix { $0 != "(" })
    let sum = times[name] ?? (0, 0)
    times[name] = (sum.calls + 1, sum.seconds + seconds)
  }

  /// Longest first.
  public var operations: [OperationTime] {
    times.map { OperationTime(name: $0.key, calls: $0.value.calls, seconds: $0.value.seconds) }.sorted { $0.seconds > $1.seconds }
  }
}
