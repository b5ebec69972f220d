// How many cores this process may use, by what Linux says of it in files; elsewhere all of them.

extension POSIX {
  /// Cores that this process may use: its affinity, cut by a cgroup's quota.
  public static var usableCores: Int {
    max(1, min(allowedCores ?? presentCores, cgroupQuota ?? presentCores))
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

  /// The text after `key:` in a file of such lines.
  public static func value(of key: String, in file: String) -> String? {
    for line in lines(of: file) {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2, parts[0].split(whereSeparator: \.isWhitespace).joined(separator: " ") == key else { continue }
      return parts[1].split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }
    return nil
  }
}
