#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What this process may use, and what it used.
enum Machine {
  /// Cores that this process may use: its affinity, cut by a cgroup's quota.
  static var usableCores: Int {
    #if os(Linux)
      var set = cpu_set_t()
      let isKnown = sched_getaffinity(0, MemoryLayout<cpu_set_t>.size, &set) == 0
      let cores = withUnsafeBytes(of: &set) { $0.reduce(0) { $0 + $1.nonzeroBitCount } }
      return max(1, min(isKnown ? cores : Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))), cgroupQuota ?? .max))
    #else
      return max(1, Int(sysconf(_SC_NPROCESSORS_ONLN)))
    #endif
  }

  /// Whole cores that the cgroup's quota allows (`cpu.max` of version 2: quota and period in µs); nil if there is none.
  private static var cgroupQuota: Int? {
    guard let file = fopen("/sys/fs/cgroup/cpu.max", "r") else { return nil }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 64)
    guard fgets(&line, Int32(line.count), file) != nil else { return nil }
    let words = String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(separator: " ")
    guard words.count == 2, let quota = Int(words[0]), let period = Int(words[1]), period > 0 else { return nil }
    return max(1, (quota + period - 1) / period)
  }

  /// The largest resident size that this process has had, in bytes.
  static var peakResidentBytes: Int {
    var usage = rusage()
    getrusage(RUSAGE_SELF, &usage)
    #if os(Linux)
      return usage.ru_maxrss * 1024
    #else
      return usage.ru_maxrss
    #endif
  }

  /// Seconds of a clock that only moves forward.
  static var seconds: Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }
}
