import COpenBLAS

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Calls and seconds of each operation, counted while a profile runs.
final class Profile {
  private var times: [String: (calls: Int, seconds: Double)] = [:]
  private var depth = 0

  /// The measurement of one operation, from `CPUCore.watch` to `stop`.
  struct Watch {
    let profile: Profile?
    let name: StaticString
    let start: Double

    /// Adds the time since the watch began; what an operation calls inside counts as its own.
    @inline(__always)
    func stop() { profile?.add(self) }
  }

  func begin(_ name: StaticString) -> Watch {
    depth += 1
    return Watch(profile: self, name: name, start: Self.now)
  }

  private func add(_ watch: Watch) {
    depth -= 1
    guard depth == 0 else { return }
    let name = "\(watch.name)"
    let sum = times[name] ?? (0, 0)
    times[name] = (sum.calls + 1, sum.seconds + Self.now - watch.start)
  }

  /// Longest first.
  var operations: [OperationTime] {
    times.map { OperationTime(name: $0.key, calls: $0.value.calls, seconds: $0.value.seconds) }.sorted { $0.seconds > $1.seconds }
  }

  private static var now: Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }
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

/// Who shares a large product among the threads.
public enum ProductThreading: Sendable {
  /// We do: our threads take rows or columns, OpenBLAS runs single-threaded in each.
  case rows
  /// OpenBLAS does, with threads of its own.
  case library
}

extension CPUCore {
  /// Begins to time an operation; costs one test when no profile runs.
  @inline(__always)
  func watch(_ name: StaticString) -> Profile.Watch {
    profile?.begin(name) ?? Profile.Watch(profile: nil, name: name, start: 0)
  }
}

extension CPUFloat {
  /// Threads that this backend computes with.
  public var threadCount: Int { core.threads.threads }

  /// Who shares large products among the threads; OpenBLAS's threads are a setting of the whole process.
  public var productThreading: ProductThreading {
    get { core.productThreading }
    set {
      core.productThreading = newValue
      openblas_set_num_threads(newValue == .library ? Int32(core.threads.threads) : 1)
    }
  }

  /// Begins to count calls and seconds of each operation.
  public func startProfile() { core.profile = Profile() }

  /// Ends the count: every operation that was called, longest first.
  public func stopProfile() -> [OperationTime] {
    defer { core.profile = nil }
    return core.profile?.operations ?? []
  }
}
