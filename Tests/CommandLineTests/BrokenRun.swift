import Foundation

// What tests of runs that break share.

/// A file system of 1 MiB in memory, where this user may mount one.
final class SmallDisk {
  let path: String

  init?(_ path: String) {
    self.path = path
    guard geteuid() == 0, FileManager.default.isExecutableFile(atPath: "/bin/mount"),
      (try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)) != nil,
      (try? Program.run(["-t", "tmpfs", "-o", "size=1m", "tmpfs", path], program: "/bin/mount"))?.code == 0
    else { return nil }
  }

  deinit { _ = try? Program.run([path], program: "/bin/umount") }

  static let canBeMade: Bool = {
    guard let scratch = try? Scratch() else { return false }
    return SmallDisk(scratch.url.path + "/disk") != nil
  }()
}

/// Random numbers under a seed (SplitMix64).
struct SplitMix64 {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  /// Uniform in [0, 1).
  mutating func fraction() -> Double {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return Double((z ^ (z >> 31)) >> 11) * 0x1p-53
  }
}
