import Platform
import Synchronization

/// Ends this process with exit code 5, and so the job, when one call waits longer than a limit for the other ranks.
///
/// A machine that is gone without a word looks like one that is slow, and MPI says nothing for many minutes (TCP) or ever (memory that
/// is shared).
final class Watchdog: Sendable {
  private let since = Atomic<Int>(0)  // the clock when the call began, in milliseconds; 0 between calls

  /// Watches from now on.
  ///
  /// - Parameters:
  ///   - limit: seconds that a call may take.
  ///   - who: what this rank calls itself.
  init(limit: Int, who: String) {
    _ = Thread { [self] in
      while true {
        POSIX.sleep(0.5)
        let begin = since.load(ordering: .relaxed)
        guard begin > 0, Self.milliseconds - begin >= 1000 * limit else { continue }
        POSIX.endAtOnce(
          5,
          saying:
            "error: \(who) waited \(limit) s for the other ranks (--rank-timeout): one of them, or the network, is gone. --resume goes "
            + "on from the last checkpoint, on any number of ranks.\n")
      }
    }
  }

  private static var milliseconds: Int { max(1, Int(1000 * POSIX.seconds)) }

  /// Watches over a call.
  func watching<Result>(_ call: () -> Result) -> Result {
    since.store(Self.milliseconds, ordering: .relaxed)
    defer { since.store(0, ordering: .relaxed) }
    return call()
  }
}
