import COpenBLAS
import Platform
import Tensors

/// Who shares a large product among the threads.
enum ProductThreading {
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
    profile?.add(name, seconds: POSIX.seconds - start)
  }
}

extension CPUBackend {
  /// The processor, its threads and OpenBLAS's kernels.
  public var machineName: String {
    "\(POSIX.processorName), \(threadCount) thread\(threadCount == 1 ? "" : "s"), OpenBLAS \(OpenBLAS.coreType)"
  }

  /// The caller's included.
  public var threadCount: Int { core.threads.threads }

  /// The process's resident memory.
  public var peakBytes: Int { POSIX.peakResidentBytes }

  /// The process's resident memory now.
  public var heldBytes: Int { POSIX.residentBytes }

  /// First our threads, then OpenBLAS's, which are a setting of the whole process.
  public func withEachWayOfProducts<R>(_ body: () throws -> R) rethrows -> [R] {
    let ours = try body()
    core.productThreading = .library
    openblas_set_num_threads(Int32(core.threads.threads))
    defer {
      core.productThreading = .rows
      openblas_set_num_threads(1)
    }
    return [ours, try body()]
  }

  /// Begins to count.
  public func startProfile() { core.profile = Profile() }

  /// Ends the count.
  public func stopProfile() -> [OperationTime] {
    defer { core.profile = nil }
    return core.profile?.operations ?? []
  }
}

extension CPUFloat: ProfilingBackend {}
extension CPUDouble: ProfilingBackend {}
