import Checkpoints
import Foundation
import Testing
import Training

@Suite struct EvaluateCommandTests {
  @Test func theIntervalIsWilsons() {
    // 8 of 10: the worked example that textbooks give, [0.490, 0.943].
    let interval = wilsonInterval(right: 8, count: 10)
    #expect(abs(interval.low - 0.4901625) < 1e-6 && abs(interval.high - 0.9433178) < 1e-6, "\(interval)")
    #expect(wilsonInterval(right: 0, count: 5).low < 1e-12)
  }

  @Test(arguments: [
    (["--split", "dev"], "dev"), (["--limit", "0"], "--limit is 0"), (["--task", "hellaswag"], "hellaswag"),
  ])
  func whatCannotBeAskedIsAUsageError(_ extra: [String], _ part: String) throws {
    let result = try Program.run(["evaluate", "--model", "m", "--data", "d"] + extra)
    #expect(result.code == 2 && result.error.contains(part), "\(result.error)")
  }

  @Test func aFolderWithoutTasksIsNamed() throws {
    let scratch = try Scratch()
    let result = try Program.run(["evaluate", "--model", "m", "--data", scratch.url.path])
    #expect(result.code == 3 && result.error.contains("no TASK/test.jsonl"), "\(result.error)")
  }
}
