#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// The few functions of the C library that this module needs; no other file knows which one it is.
enum CLibrary {
  static func exp(_ x: Double) -> Double { _exp(x) }
  static func tanh(_ x: Double) -> Double { _tanh(x) }
  static func log(_ x: Double) -> Double { _log(x) }
  static func log(_ x: Float) -> Float { logf(x) }
  static func cos(_ x: Double) -> Double { _cos(x) }
  static func sin(_ x: Double) -> Double { _sin(x) }
  static func pow(_ x: Double, _ y: Double) -> Double { _pow(x, y) }

  /// Lets another thread run on this core.
  static func yield() { _ = sched_yield() }
}

// The names inside `CLibrary` hide the C ones, so these are bound outside it.
@inline(__always) private func _exp(_ x: Double) -> Double { exp(x) }
@inline(__always) private func _tanh(_ x: Double) -> Double { tanh(x) }
@inline(__always) private func _log(_ x: Double) -> Double { log(x) }
@inline(__always) private func _cos(_ x: Double) -> Double { cos(x) }
@inline(__always) private func _sin(_ x: Double) -> Double { sin(x) }
@inline(__always) private func _pow(_ x: Double, _ y: Double) -> Double { pow(x, y) }

/// A mutex with a condition on which threads sleep.
final class Condition: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  init() {
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

  func lock() { pthread_mutex_lock(mutex) }
  func unlock() { pthread_mutex_unlock(mutex) }
  /// Sleeps until `wakeAll`; the mutex is held before and after.
  func wait() { pthread_cond_wait(condition, mutex) }
  func wakeAll() { pthread_cond_broadcast(condition) }
}

/// A thread that runs one closure and is joined.
final class Thread {
  #if canImport(Darwin)
    private var identifier: pthread_t?
  #else
    private var identifier = pthread_t()
  #endif

  private final class Start {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  init(_ body: @escaping @Sendable () -> Void) {
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
  func join() {
    #if canImport(Darwin)
      if let identifier { pthread_join(identifier, nil) }
    #else
      pthread_join(identifier, nil)
    #endif
  }
}
