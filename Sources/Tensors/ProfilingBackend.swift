/// A backend that can say what it computes with and what its operations cost: what a benchmark asks for.
public protocol ProfilingBackend: Backend {
  /// What it computes with, for people: a processor's library and threads, or a GPU.
  var machineName: String { get }
  /// Threads of the host that compute.
  var threadCount: Int { get }
  /// The most bytes of memory that were in use: the process's, or the device's.
  var peakBytes: Int { get }
  /// Memory in use before a run.
  var held: HeldMemory { get }
  /// Runs `body` once for every way in which the backend can run large products.
  func withEachWayOfProducts<R>(_ body: () throws -> R) rethrows -> [R]
  /// Begins to note when each operation runs. Where operations are enqueued, each is waited for meanwhile.
  func startProfile()
  /// Ends it: every call since then.
  func stopProfile() -> Profile
}

/// Memory that is in use before a run: the process's with what libraries take once they compute, or the device's.
public struct HeldMemory: Equatable, Sendable {
  /// How many bytes.
  public let bytes: Int
  /// How many more another process may hold that does the same; 0 where blocks are counted.
  public let spread: Int

  /// So many bytes.
  public init(bytes: Int, spread: Int = 0) { (self.bytes, self.spread) = (bytes, spread) }
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

/// The calls of operations, in the order in which they ended.
public struct Profile: Sendable {
  /// One call.
  public struct Call: Sendable {
    fileprivate let function: StaticString
    /// Seconds of the backend's clock, which only moves forward.
    public let start: Double
    /// What it took.
    public let seconds: Double

    /// Name of the operation in the protocol `Backend`.
    public var name: String { String("\(function)".prefix { $0 != "(" }) }
  }

  /// What one thread did of an operation without a pause.
  public struct Part: Sendable {
    /// Number of the thread; the caller's is 0.
    public let thread: Int
    /// Seconds of the same clock.
    public let start: Double
    /// What it took.
    public let seconds: Double

    /// A part that a thread ran.
    public init(thread: Int, start: Double, end: Double) { (self.thread, self.start, seconds) = (thread, start, end - start) }
  }

  /// All calls.
  public private(set) var calls: [Call] = []
  /// What the host's threads did of them, thread by thread, where the backend knows.
  public var parts: [Part] = []

  /// Nothing noted.
  public init() {}

  /// A call of an operation, by its name or by the compiler's, with the labels of its arguments.
  public mutating func add(_ function: StaticString, start: Double, end: Double) {
    calls.append(Call(function: function, start: start, seconds: end - start))
  }

  /// Calls and seconds of each operation, longest first.
  public var operations: [OperationTime] {
    var times: [String: (calls: Int, seconds: Double)] = [:]
    for call in calls {
      let sum = times[call.name] ?? (0, 0)
      times[call.name] = (sum.calls + 1, sum.seconds + call.seconds)
    }
    return times.map { OperationTime(name: $0.key, calls: $0.value.calls, seconds: $0.value.seconds) }.sorted { $0.seconds > $1.seconds }
  }
}
