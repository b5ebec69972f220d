#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

extension POSIX {
  /// Lets another thread run on this core.
  public static func yield() { _ = sched_yield() }
}

/// A mutex with a condition on which threads sleep.
public final class Condition: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  /// A mutex that is free and a condition that nobody waits for.
  public init() {
    mutex.initialize(to: pthread_mutex_t())
    condition.initialize(to: pthread_cond_t())
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  /// Takes the mutex.
  public func lock() { pthread_mutex_lock(mutex) }
  /// Gives the mutex back.
  public func unlock() { pthread_mutex_unlock(mutex) }
  /// Sleeps until `wakeAll`; the mutex is held before and after.
  public func wait() { pthread_cond_wait(condition, mutex) }
  /// Wakes all that sleep.
  public func wakeAll() { pthread_cond_broadcast(condition) }
}

/// A thread that runs one closure and is joined.
public final class Thread {
  #if canImport(Darwin)
    private var identifier: pthread_t?
  #else
    private var identifier = pthread_t()
  #endif

  private final class Start {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  /// Starts a thread.
  public init(_ body: @escaping @Sendable () -> Void) {
    let start = Unmanaged.passRetained(Start(body)).toOpaque()
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setstacksize(&attributes, 8 << 20)  // macOS gives threads 512 kB, and OpenBLAS puts small blocks there
    let status = pthread_create(&identifier, &attributes, { Thread.run($0) }, start)
    precondition(status == 0, "pthread_create failed with error \(status)")
  }

  private static func run(_ start: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let start else { return nil }
    Unmanaged<Start>.fromOpaque(start).takeRetainedValue().body()
    return nil
  }

  /// Waits until the closure has returned. Call it once.
  public func join() {
    #if canImport(Darwin)
      if let identifier { pthread_join(identifier, nil) }
    #else
      pthread_join(identifier, nil)
    #endif
  }
}
