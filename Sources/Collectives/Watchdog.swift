import Platform
import Synchronization

/// Ends this process with exit code 5, and so the job, when it waits longer than a limit for other ranks, and says for which.
///
/// A machine that is gone without a word looks like one that is slow, and MPI says nothing for many minutes (TCP) or ever (memory that
/// is shared).
final class Watchdog: Sendable {
  /// What a wait is for.
  enum Wait {
    /// The library's own start.
    case start
    /// Ranks that have not come to what all do together.
    case absent([Int])
    /// A message of the other way of an exchange to which both ranks have come.
    case partner(Int)
    /// What a function of the library makes of messages of all ranks, all of which have come.
    case all(of: String)
  }

  private struct State {
    var since: Double?  // the clock when the wait began
    var wait = Wait.start
    var places: [String] = []  // where each rank runs, once that is known
  }
  private let state = Mutex(State())

  /// Watches from now on.
  ///
  /// - Parameters:
  ///   - limit: seconds that a wait may take.
  ///   - who: what this rank calls itself.
  init(limit: Int, who: String) {
    _ = Thread { [self] in
      while true {
        POSIX.sleep(0.5)
        let state = state.withLock { $0 }
        guard let since = state.since, POSIX.seconds - since >= Double(limit) else { continue }
        // The first to end makes the launcher end the others, who may know more: all get time to say for whom they wait.
        POSIX.end(
          5,
          saying: "error: \(who) waited \(limit) s (--rank-timeout) for \(Self.text(state)). --resume goes on from the last checkpoint, on "
            + "any number of ranks.\n", secondsBefore: 1)
      }
    }
  }

  /// What was waited for, and what that may mean.
  private static func text(_ state: State) -> String {
    func name(_ rank: Int) -> String {
      "rank \(rank)" + (rank < state.places.count ? " (\(state.places[rank]))" : "")
    }
    switch state.wait {
    case .start: return "MPI to start: a rank was not started, or its machine is not reached from here"
    case .absent(let ranks):
      let names = ranks.map(name).joined(separator: ", ")
      return "\(names), \(ranks.count == 1 ? "which has" : "which have") not come to what all ranks do together: stopped, cut off from the "
        + "network, or slower than that"
    case .partner(let rank):
      return "\(name(rank)) in the middle of an exchange: it, or a rank that it waits for, is stopped or cut off from the network"
    case .all(let function):
      return "the other ranks in \(function), to which all had come: one of them is stopped or cut off from the network"
    }
  }

  /// Where each rank runs; nothing as long as nobody knows.
  var places: [String] {
    get { state.withLock { $0.places } }
    set { state.withLock { $0.places = newValue } }
  }

  /// Watches over a wait, whose reason may change while it lasts.
  func watching<Result>(for wait: Wait, _ body: () throws -> Result) rethrows -> Result {
    state.withLock { ($0.since, $0.wait) = (POSIX.seconds, wait) }
    defer { state.withLock { $0.since = nil } }
    return try body()
  }

  /// The same wait is for something else now.
  func waits(for wait: Wait) { state.withLock { $0.wait = wait } }
}
