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
    profile?.add(name, start: start, end: POSIX.seconds)
  }
}

/// When which thread ran a part of a loop; each thread writes a list of its own.
final class PartLog {
  private let threads: Int
  private let lists: UnsafeMutablePointer<[Profile.Part]>

  init(threads: Int) {
    self.threads = threads
    lists = .allocate(capacity: threads)
    lists.initialize(repeating: [], count: threads)
  }

  deinit {
    lists.deinitialize(count: threads)
    lists.deallocate()
  }

  /// What all threads noted, once none is running.
  var parts: [Profile.Part] { (0..<threads).flatMap { lists[$0] } }

  /// A part that `thread` ran; called by that thread.
  func note(_ thread: Int, _ start: Double, _ end: Double) {
    lists[thread].append(Profile.Part(thread: thread, start: start, end: end))
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

  /// The process's resident memory now, and for each thread 4 MiB that OpenBLAS packs factors into from its first product on. Pages of
  /// program and libraries are there or not as the system likes (0.6 MB of 40 were seen), whatever the size of the model.
  public var held: HeldMemory {
    HeldMemory(bytes: POSIX.residentBytes + core.threads.threads * (4 << 20), spread: 2_000_000)
  }

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

  /// Begins to note calls.
  public func startProfile() {
    core.profile = Profile()
    core.threads.log = PartLog(threads: core.threads.threads)
  }

  /// Ends it.
  public func stopProfile() -> Profile {
    var profile = core.profile.take() ?? Profile()
    profile.parts = core.threads.log.take()?.parts ?? []
    return profile
  }
}

extension CPUFloat: ProfilingBackend {}
extension CPUDouble: ProfilingBackend {}
