import COpenBLAS
import Platform

/// Calls and seconds of each operation, counted while a profile runs.
final class Profile {
  private var times: [String: (calls: Int, seconds: Double)] = [:]

  func add(_ name: StaticString, since start: Double) {
    let name = "\(name)"
    let sum = times[name] ?? (0, 0)
    times[name] = (sum.calls + 1, sum.seconds + POSIX.seconds - start)
  }

  /// Longest first.
  var operations: [OperationTime] {
    times.map { OperationTime(name: $0.key, calls: $0.value.calls, seconds: $0.value.seconds) }.sorted { $0.seconds > $1.seconds }
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
  /// Runs an operation of `Backend`: counts it, and times it while a profile runs. What it calls inside is a part of it.
  @inline(__always)
  func timed<R>(_ name: StaticString, _ body: () throws -> R) rethrows -> R {
    let start = begin()
    defer { end(name, start) }
    return try body()
  }

  private func begin() -> Double {
    depth += 1
    return depth == 1 && profile != nil ? POSIX.seconds : 0
  }

  private func end(_ name: StaticString, _ start: Double) {
    depth -= 1
    if depth > 0 { return }
    operations += 1
    profile?.add(name, since: start)
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
