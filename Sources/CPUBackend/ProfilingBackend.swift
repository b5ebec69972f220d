import Tensors

/// A backend that can say what its operations cost and how it shares them among threads: what a benchmark asks for.
public protocol ProfilingBackend: Backend {
  /// Threads that it computes with.
  var threadCount: Int { get }
  /// Who shares large products among the threads.
  var productThreading: ProductThreading { get set }
  /// Begins to count calls and seconds of each operation.
  func startProfile()
  /// Ends the count: every operation that was called, longest first.
  func stopProfile() -> [OperationTime]
}

extension CPUFloat: ProfilingBackend {}
