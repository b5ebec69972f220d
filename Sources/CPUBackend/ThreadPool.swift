import Platform
import Synchronization

/// Threads that share the parts of one loop. The only place where a closure crosses threads unchecked.
///
/// The caller takes parts like everybody else and returns when all parts are done. It never waits for a worker
/// that has not taken a part, so a worker that the system does not let run costs nothing but its help. Idle
/// workers look for work for some 30 µs, which bridges the gap between two operations, and then sleep.
///
/// Which thread runs a part is chance; results must depend on the part's number alone. One caller at a time, and
/// a part must not call `parallel` itself.
final class ThreadPool {
  /// Threads that take part, the caller included.
  let threads: Int
  private let job = Job()
  private var workers: [Thread] = []

  /// - Precondition: `threads` ≥ 1.
  init(threads: Int) {
    precondition(threads >= 1, "a pool of \(threads) threads")
    self.threads = threads
    for worker in 1..<max(threads, 1) {
      let job = job
      workers.append(Thread { job.work(worker) })
    }
  }

  /// Where the parts of loops that threads share are noted while a profile runs.
  var log: PartLog? {
    get { job.log }
    set { job.log = newValue }
  }

  deinit {
    job.stop()
    for worker in workers { worker.join() }
  }

  /// Calls `body` once for each of 0 ..< parts, on several threads when there are several parts.
  func parallel(_ parts: Int, _ body: (_ part: Int) -> Void) {
    parallel(parts) { part, _ in body(part) }
  }

  /// As `parallel`, and tells which thread (0 ..< threads, the caller is 0) runs the part: the owner of its scratch.
  func parallel(_ parts: Int, _ body: (_ part: Int, _ thread: Int) -> Void) {
    if threads == 1 || parts <= 1 {
      for part in 0..<max(parts, 0) { body(part, 0) }
      return
    }
    withoutActuallyEscaping(body) { body in
      withUnsafePointer(to: body) { job.run(parts, $0) }
    }
  }
}

/// The loop that the threads of a pool share.
private final class Job: Sendable {
  typealias Body = (Int, Int) -> Void

  /// Number of the loop in the upper 32 bits, parts that nobody has taken yet in the lower: one word, so that a
  /// thread that read an old loop's state cannot take a part of the new one.
  private let ticket = Atomic<UInt64>(0)
  /// Address of the closure. Valid while parts are left to take or being run.
  private let body = Atomic<UInt>(0)
  private let finished = Atomic<Int>(0)
  private let sleepers = Atomic<Int>(0)
  private let isStopping = Atomic<Bool>(false)
  /// Written between loops by the caller alone; a thread reads it when it has taken a part.
  nonisolated(unsafe) var log: PartLog?
  private let condition = Condition()

  private static let remainingMask: UInt64 = 0xffff_ffff
  /// Looks at `ticket` before a worker sleeps: 20 to 50 µs.
  private static let patience = 20_000

  /// The caller's side.
  func run(_ parts: Int, _ pointer: UnsafePointer<Body>) {
    finished.store(0, ordering: .relaxed)
    body.store(UInt(bitPattern: pointer), ordering: .relaxed)
    let generation = (ticket.load(ordering: .relaxed) >> 32) &+ 1
    ticket.store(generation << 32 | UInt64(parts), ordering: .sequentiallyConsistent)
    // Either a worker sees the new ticket before it sleeps, or we see that it sleeps: both are sequentially consistent.
    if sleepers.load(ordering: .sequentiallyConsistent) > 0 {
      condition.lock()
      condition.wakeAll()
      condition.unlock()
    }
    takeParts(0)
    var looks = 0
    while finished.load(ordering: .acquiring) != parts {
      looks += 1
      if looks > Self.patience { POSIX.yield() }
    }
  }

  /// A worker's side: take parts, look for more, sleep.
  func work(_ thread: Int) {
    var looks = 0
    while !isStopping.load(ordering: .relaxed) {
      if takeParts(thread) { looks = 0 }
      looks += 1
      guard looks > Self.patience else { continue }
      condition.lock()
      sleepers.add(1, ordering: .sequentiallyConsistent)
      while ticket.load(ordering: .sequentiallyConsistent) & Self.remainingMask == 0, !isStopping.load(ordering: .sequentiallyConsistent) {
        condition.wait()
      }
      sleepers.subtract(1, ordering: .sequentiallyConsistent)
      condition.unlock()
      looks = 0
    }
  }

  func stop() {
    isStopping.store(true, ordering: .sequentiallyConsistent)
    condition.lock()
    condition.wakeAll()
    condition.unlock()
  }

  /// Runs parts, the last one first, until none is left; false if there was none.
  @discardableResult
  private func takeParts(_ thread: Int) -> Bool {
    var found = false
    while true {
      let seen = ticket.load(ordering: .acquiring)
      let remaining = Int(seen & Self.remainingMask)
      if remaining == 0 { return found }
      let address = body.load(ordering: .relaxed)  // that of `seen` if the exchange succeeds
      guard ticket.compareExchange(expected: seen, desired: seen - 1, ordering: .acquiringAndReleasing).exchanged,
        let pointer = UnsafePointer<Body>(bitPattern: address)
      else { continue }
      found = true
      let start = log == nil ? 0 : POSIX.seconds
      pointer.pointee(remaining - 1, thread)
      log?.note(thread, start, POSIX.seconds)
      finished.add(1, ordering: .releasing)
    }
  }
}
