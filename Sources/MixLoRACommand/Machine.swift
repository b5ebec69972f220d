import Platform

/// What this process may use, and what it used.
enum Machine {
  /// Whether the processor has AVX2 and FMA; nil where it is no x86 or does not say.
  static var hasAVX2: Bool? {
    guard let flags = POSIX.value(of: "flags", in: "/proc/cpuinfo")?.split(separator: " ") else { return nil }
    return flags.contains("avx2") && flags.contains("fma")
  }

  /// Where temporary files go.
  static var temporaryFolder: String { POSIX.environment("TMPDIR").flatMap { $0.isEmpty ? nil : $0 } ?? "/tmp" }

  /// The most bytes that this process may have: its cgroup's limit, else all of the machine's.
  static var mostBytes: Double { memoryLimit ?? POSIX.memoryBytes }

  /// Refuses what this process cannot hold: random weights and new adapters are not limited by a file.
  ///
  /// - Parameters:
  ///   - bytes: what is needed.
  ///   - what: what needs it.
  ///   - input: what asks for it, a file or options.
  static func requireMemory(_ bytes: Double, for what: String, input: String) throws {
    let most = mostBytes
    guard bytes < most else {
      throw InputError(
        "\(input): found sizes that need \(fixed(bytes / 1_073_741_824, 1)) GiB for \(what); expected at most the "
          + "\(fixed(most / 1_073_741_824, 1)) GiB that this process may have")
    }
  }

  /// Memory that could be taken without swapping, in bytes; nil where the system does not tell.
  static var availableBytes: Double? {
    guard let words = POSIX.value(of: "MemAvailable", in: "/proc/meminfo")?.split(separator: " "),
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
}
