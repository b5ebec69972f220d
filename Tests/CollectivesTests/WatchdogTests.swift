import Testing

@testable import Collectives

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A process that waits too long for others ends, and says for whom.
@Suite struct WatchdogTests {
  private func expect(_ result: ExitTest.Result?, _ text: String) {
    let error = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(error.contains(text) && error.contains("--resume goes on from the last checkpoint"), "\(error)")
  }

  @Test func whoDidNotComeIsNamedWithItsProcessAndMachine() async {
    let result = await #expect(processExitsWith: .exitCode(5), observing: [\.standardErrorContent]) {
      let watchdog = Watchdog(limit: 1, who: "rank 0 of 4")
      watchdog.places = (0..<4).map { "process \($0 + 10) on m\($0)" }
      watchdog.watching(for: .absent([1, 2, 3])) {
        watchdog.waits(for: .absent([1, 3]))
        sleep(5)
      }
      exit(0)
    }
    expect(
      result,
      "error: rank 0 of 4 waited 1 s (--rank-timeout) for rank 1 (process 11 on m1), rank 3 (process 13 on m3), which have not come")
  }

  @Test func beforeAnyoneIsKnownItIsMPIsStart() async {
    let result = await #expect(processExitsWith: .exitCode(5), observing: [\.standardErrorContent]) {
      Watchdog(limit: 1, who: "rank 1 of 2").watching(for: .start) { _ = sleep(5) }
      exit(0)
    }
    expect(result, "error: rank 1 of 2 waited 1 s (--rank-timeout) for MPI to start")
  }

  @Test func waitsThatEndInTimeDoNotAddUpAndWorkIsNoWait() async {
    await #expect(processExitsWith: .exitCode(0)) {
      let watchdog = Watchdog(limit: 2, who: "rank 0 of 2")
      for _ in 0..<3 {
        watchdog.watching(for: .partner(1)) { _ = sleep(1) }
        sleep(1)
      }
      exit(0)
    }
  }
}
