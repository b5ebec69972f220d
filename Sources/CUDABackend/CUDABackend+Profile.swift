import Platform
import Tensors

extension CUDACore {
  /// Runs an operation of `Backend`: counts it, and times it while a profile runs. What it calls inside is a part of it.
  ///
  /// - Parameter name: the operation's, which the compiler gives as `add(_:_:into:rows:)`.
  func operation<R>(_ name: StaticString = #function, _ body: () throws -> R) rethrows -> R {
    depth += 1
    defer { depth -= 1 }
    if depth > 1 { return try body() }
    counters.operations += 1
    guard profile != nil else { return try body() }
    settle()
    let start = POSIX.seconds
    defer {
      settle()
      profile?.add(name, start: start, end: POSIX.seconds)
    }
    return try body()
  }

  /// Waits for the device, which nobody counts.
  private func settle() { attempt { try device.check(device.table.synchronize(device.handle)) } }
}

extension CUDABackend {
  /// The device, and with what it was opened.
  public var machineName: String { core.device.description }

  /// One thread enqueues.
  public var threadCount: Int { 1 }

  /// The pool's blocks on the device.
  public var peakBytes: Int { core.pool.free.bytes }

  /// The same: none is given back.
  public var held: HeldMemory { HeldMemory(bytes: core.pool.free.bytes) }

  /// There is one way.
  public func withEachWayOfProducts<R>(_ body: () throws -> R) rethrows -> [R] { [try body()] }

  /// Begins to note calls; each operation is waited for from here on.
  public func startProfile() { core.profile = Profile() }

  /// Ends it.
  public func stopProfile() -> Profile { core.profile.take() ?? Profile() }
}

extension CUDAFloat: ProfilingBackend {}
extension CUDADouble: ProfilingBackend {}
