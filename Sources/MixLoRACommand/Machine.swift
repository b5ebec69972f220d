import Platform

/// What this process may use, and what it used.
enum Machine {
  /// Cores that this process may use: its affinity, cut by a cgroup's quota.
  static var usableCores: Int {
    max(1, min(allowedCores ?? POSIX.presentCores, cgroupQuota ?? POSIX.presentCores))
  }

  /// The name that the processor gives itself.
  static var processorName: String {
    POSIX.processorBrand ?? value(of: "model name", in: "/proc/cpuinfo") ?? "unknown processor"
  }

  /// Whether the processor has AVX2 and FMA; nil where it is no x86 or does not say.
  static var hasAVX2: Bool? {
    guard let flags = value(of: "flags", in: "/proc/cpuinfo")?.split(separator: " ") else { return nil }
    return flags.contains("avx2") && flags.contains("fma")
  }

  /// Where temporary files go.
  static var temporaryFolder: String { POSIX.environment("TMPDIR").flatMap { $0.isEmpty ? nil : $0 } ?? "/tmp" }

  /// Cores in the affinity mask: hexadecimal words, separated by commas, in /proc/self/status; nil where there is none.
  private static var allowedCores: Int? {
    guard let mask = value(of: "Cpus_allowed", in: "/proc/self/status") else { return nil }
    let bits = mask.compactMap(\.hexDigitValue).reduce(0) { $0 + $1.nonzeroBitCount }
    return bits > 0 ? bits : nil
  }

  /// Whole cores that the cgroup's quota allows (`cpu.max` of version 2: quota and period in µs); nil if there is none.
  private static var cgroupQuota: Int? {
    guard let words = POSIX.lines(of: "/sys/fs/cgroup/cpu.max").first?.split(separator: " "), words.count == 2, let quota = Int(words[0]),
      let period = Int(words[1]), period > 0
    else { return nil }
    return max(1, (quota + period - 1) / period)
  }

  /// Refuses what this process cannot hold: random weights and new adapters are not limited by a file.
  ///
  /// - Parameters:
  ///   - bytes: what is needed.
  ///   - what: what needs it.
  ///   - input: what asks for it, a file or options.
  static func requireMemory(_ bytes: Double, for what: String, input: String) throws {
    let most = memoryLimit ?? POSIX.memoryBytes
    guard bytes < most else {
      throw InputError(
        "\(input): found sizes that need \(fixed(bytes / 1_073_741_824, 1)) GiB for \(what); expected at most the "
          + "\(fixed(most / 1_073_741_824, 1)) GiB that this process may have")
    }
  }

  /// Memory that could be taken without swapping, in bytes; nil where the system does not tell.
  static var availableBytes: Double? {
    guard let words = value(of: "MemAvailable", in: "/proc/meminfo")?.split(separator: " "),
      let kilobytes = words.first.flatMap({ Double($0) })
    else { return nil }
    return 1024 * kilobytes
  }

  /// The most bytes that this process's cgroup allows (version 2, else 1); nil if there is no limit.
  static var memoryLimit: Double? {
    for file in ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"] {
      if let limit = POSIX.lines(of: file).first.flatMap({ Double($0) }), limit > 0, limit < POSIX.memoryBytes { return limit }
    }
    return nil
  }

  /// The text after `key:` in a file of such lines.
  private static func value(of key: String, in file: String) -> String? {
    for line in POSIX.lines(of: file) {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2, parts[0].split(whereSeparator: \.isWhitespace).joined(separator: " ") == key else { continue }
      return parts[1].split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }
    return nil
  }
}
