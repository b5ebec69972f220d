import Foundation
import Testing

/// Ranks and their launcher, as they run. Every wait for them has a limit; at it, and when nobody has the job any more, all of its
/// processes are killed: a rank that is stopped or hangs outlives its launcher.
final class RankJob {
  /// A wait that came to its limit.
  struct TookTooLong: Error, CustomStringConvertible {
    let description: String
  }

  private let launcher = Process()
  private let scratch: Scratch
  private let mark = "MIXLORA_TEST_JOB=" + UUID().uuidString

  /// Starts a launcher; `env` hands it the mark, by which its processes are known wherever it puts them.
  init(_ path: String, _ arguments: [String], environment: [String]) throws {
    scratch = try Scratch()
    launcher.executableURL = URL(filePath: "/usr/bin/env")
    launcher.arguments = [mark] + environment + [path] + arguments
    launcher.standardInput = FileHandle.nullDevice
    for file in [output, error] { try Data().write(to: file) }
    launcher.standardOutput = try FileHandle(forWritingTo: output)
    launcher.standardError = try FileHandle(forWritingTo: error)
    try launcher.run()
  }

  deinit { end() }

  private var output: URL { scratch.url.appending(path: "out") }
  private var error: URL { scratch.url.appending(path: "err") }

  var isRunning: Bool { launcher.isRunning }

  /// What all of them said so far.
  var said: String { [error, output].map { (try? String(contentsOf: $0, encoding: .utf8)) ?? "" }.joined() }

  /// The job's processes, and what each was given.
  private var processes: [(id: Int32, environment: [String])] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return names.compactMap { Int32($0) }.compactMap { id in
      guard let data = FileManager.default.contents(atPath: "/proc/\(id)/environ"), data.range(of: Data(mark.utf8)) != nil else {
        return nil
      }
      return (id, data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) })
    }
  }

  /// The process of each rank.
  var ranks: [Int: Int32] {
    var found: [Int: Int32] = [:]
    for (id, environment) in processes {
      for name in ["OMPI_COMM_WORLD_RANK=", "PMI_RANK="] {
        for word in environment where word.hasPrefix(name) { found[Int(word.dropFirst(name.count)) ?? -1] = id }
      }
    }
    return found
  }

  /// Waits until it is so, or until the launcher has ended.
  func wait(_ what: String, limit: Double = 120, until isSo: () -> Bool) throws {
    let start = ContinuousClock.now
    while isRunning, !isSo() {
      guard ContinuousClock.now - start < .seconds(limit) else {
        end()
        throw TookTooLong(description: "\(what): not within \(limit) s. \(said)")
      }
      usleep(500)
    }
  }

  /// Waits for the end of all.
  func result(limit: Double = 120) throws -> Program.Result {
    try wait("the end of the job", limit: limit) { false }
    return Program.Result(
      code: launcher.terminationReason == .exit ? launcher.terminationStatus : -launcher.terminationStatus,
      output: String(decoding: try Data(contentsOf: output), as: UTF8.self),
      error: String(decoding: try Data(contentsOf: error), as: UTF8.self))
  }

  /// Kills what is left.
  func end() {
    if isRunning { kill(launcher.processIdentifier, SIGKILL) }
    for (id, _) in processes { kill(id, SIGKILL) }
    launcher.waitUntilExit()
  }
}
