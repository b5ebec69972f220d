#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What this process may use, and what it used.
enum Machine {
  /// Cores that this process may use: its affinity, cut by a cgroup's quota.
  static var usableCores: Int {
    max(1, min(allowedCores ?? presentCores, cgroupQuota ?? presentCores))
  }

  /// Cores that are switched on.
  static var presentCores: Int { Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))) }

  /// The name that the processor gives itself.
  static var processorName: String {
    #if canImport(Darwin)
      var name = [CChar](repeating: 0, count: 256)
      var size = name.count - 1
      if sysctlbyname("machdep.cpu.brand_string", &name, &size, nil, 0) == 0 { return String(cString: name) }
    #endif
    return value(of: "model name", in: "/proc/cpuinfo") ?? "unknown processor"
  }

  /// Whether the processor has AVX2 and FMA; nil where it is no x86 or does not say.
  static var hasAVX2: Bool? {
    guard let flags = value(of: "flags", in: "/proc/cpuinfo")?.split(separator: " ") else { return nil }
    return flags.contains("avx2") && flags.contains("fma")
  }

  /// Name and release of the system, and the kind of machine.
  static var system: String {
    var names = utsname()
    guard uname(&names) == 0 else { return "unknown system" }
    func text<T>(_ field: T) -> String {
      withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    return "\(text(names.sysname)) \(text(names.release)), \(text(names.machine))"
  }

  /// A variable of the environment; nil if it is not set.
  static func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

  /// Where temporary files go.
  static var temporaryFolder: String { environment("TMPDIR").flatMap { $0.isEmpty ? nil : $0 } ?? "/tmp" }

  /// Bytes that an ordinary user may still write to the disk of a folder; nil if the system does not tell.
  static func freeBytes(_ path: String) -> Double? {
    var disk = statvfs()
    guard statvfs(path, &disk) == 0 else { return nil }
    return Double(disk.f_bavail) * Double(disk.f_frsize)
  }

  /// Cores in the affinity mask: hexadecimal words, separated by commas, in /proc/self/status; nil where there is none.
  private static var allowedCores: Int? {
    guard let mask = value(of: "Cpus_allowed", in: "/proc/self/status") else { return nil }
    let bits = mask.compactMap(\.hexDigitValue).reduce(0) { $0 + $1.nonzeroBitCount }
    return bits > 0 ? bits : nil
  }

  /// Whole cores that the cgroup's quota allows (`cpu.max` of version 2: quota and period in µs); nil if there is none.
  private static var cgroupQuota: Int? {
    guard let words = lines(of: "/sys/fs/cgroup/cpu.max").first?.split(separator: " "), words.count == 2, let quota = Int(words[0]),
      let period = Int(words[1]), period > 0
    else { return nil }
    return max(1, (quota + period - 1) / period)
  }

  /// The largest resident size that this process has had, in bytes.
  static var peakResidentBytes: Int {
    var usage = rusage()
    #if os(Linux)
      getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
      return usage.ru_maxrss * 1024
    #else
      getrusage(RUSAGE_SELF, &usage)
      return usage.ru_maxrss
    #endif
  }

  /// The memory of this machine, in bytes.
  static var memoryBytes: Double { Double(sysconf(Int32(_SC_PHYS_PAGES))) * Double(sysconf(Int32(_SC_PAGESIZE))) }

  /// Refuses what this process cannot hold: random weights and new adapters are not limited by a file.
  ///
  /// - Parameters:
  ///   - bytes: what is needed.
  ///   - what: what needs it.
  ///   - input: what asks for it, a file or options.
  static func requireMemory(_ bytes: Double, for what: String, input: String) throws {
    let most = memoryLimit ?? memoryBytes
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
      if let limit = lines(of: file).first.flatMap({ Double($0) }), limit > 0, limit < memoryBytes { return limit }
    }
    return nil
  }

  /// Columns of the terminal that standard error goes to; 80 where nobody says.
  static var terminalColumns: Int {
    var size = winsize()
    return ioctl(2, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 1 ? Int(size.ws_col) : 80
  }

  /// Seconds of a clock that only moves forward.
  static var seconds: Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }

  /// The text after `key:` in a file of such lines.
  private static func value(of key: String, in file: String) -> String? {
    for line in lines(of: file) {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2, parts[0].split(whereSeparator: \.isWhitespace).joined(separator: " ") == key else { continue }
      return parts[1].split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }
    return nil
  }

  /// The first lines of a small file of the system; none if it cannot be read.
  private static func lines(of path: String) -> [String] {
    guard let file = fopen(path, "r") else { return [] }
    defer { fclose(file) }
    var lines: [String] = []
    var buffer = [CChar](repeating: 0, count: 4096)
    while lines.count < 200, fgets(&buffer, Int32(buffer.count), file) != nil {
      lines.append(String(decoding: buffer.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }
    return lines
  }
}
