import Checkpoints
import Platform
import Tensors

/// Where the time of some work goes. On a device each operation is waited for while a profile runs, so that this takes longer than the
/// work alone.
struct OperationProfile {
  /// Calls and seconds of each operation a repetition, the longest first.
  let operations: [(name: String, calls: Int, seconds: Double)]
  /// Seconds of a repetition that no operation took.
  let outside: Double
  /// Every call of the last repetition, and what threads did of it.
  let calls: [Profile.Call]
  let parts: [Profile.Part]

  init<B: ProfilingBackend>(of repeats: Int, on backend: B, _ work: (Int) throws -> Void) rethrows {
    backend.startProfile()
    let start = POSIX.seconds
    var last = start
    for index in 0..<repeats {
      last = POSIX.seconds
      try work(index)
    }
    let total = (POSIX.seconds - start) / Double(repeats)
    let profile = backend.stopProfile()
    operations = profile.operations.map { (name: $0.name, calls: $0.calls / repeats, seconds: $0.seconds / Double(repeats)) }
    outside = max(0, total - operations.reduce(0) { $0 + $1.seconds })
    calls = profile.calls.filter { $0.start >= last }
    parts = profile.parts.filter { $0.start >= last }
  }

  var json: JSON {
    var times = JSON.Object()
    for operation in operations { times[operation.name] = JSON(operation.seconds) }
    return .object(times)
  }

  var lines: [String] {
    let sum = operations.reduce(0) { $0 + $1.seconds }
    return ["operation                     calls       ms   share"]
      + operations.map {
        pad($0.name, 26) + padLeft("\($0.calls)", 9) + padLeft(fixed($0.seconds * 1000, 2), 9)
          + padLeft(fixed(100 * $0.seconds / sum, 1) + "%", 8)
      } + [pad("outside operations", 26) + padLeft("", 9) + padLeft(fixed(outside * 1000, 2), 9)]
  }
}
