import Checkpoints
import TestModels
import Testing
import Training

@Suite struct ScheduleTests {
  /// Every step of every run of `Fixtures/peers/schedules.json`: all kinds, with and without warm-up.
  @Test func theRatesAreThoseOfTransformers() throws {
    let json = try JSON(contentsOf: Fixture.path("peers/schedules.json"))
    let base = try #require(json["lr"]?.doubleValue)
    let runs = try #require(json["runs"]?.arrayValue)
    #expect(runs.count == 28)
    var seen: Set<LearningRateSchedule> = []
    for run in runs {
      let schedule = try #require(run["schedule"]?.stringValue.flatMap(LearningRateSchedule.init), "\(run.excerpt)")
      let (steps, warmup) = (try #require(run["steps"]?.intValue), try #require(run["warmup"]?.intValue))
      let expected = try #require(run["lr"]?.arrayValue).map { try #require($0.doubleValue) }
      #expect(expected.count == steps)
      seen.insert(schedule)
      for (step, rate) in expected.enumerated() {
        let found = schedule.learningRate(atStep: step, of: steps, warmup: warmup, base: base)
        #expect(abs(found - rate) <= 1e-15 * rate, "\(schedule), step \(step) of \(steps), warm-up \(warmup): \(found), \(rate)")
      }
    }
    #expect(seen == Set(LearningRateSchedule.allCases))
  }

  @Test(arguments: LearningRateSchedule.allCases)
  func noRateIsNegativeOrAboveTheBaseAndBeyondTheEndNoneIsNaN(_ schedule: LearningRateSchedule) {
    for (steps, warmup) in [(1, 0), (1, 1), (5, 5), (5, 9), (20, 3)] {
      for step in 0..<3 * steps {
        let rate = schedule.learningRate(atStep: step, of: steps, warmup: warmup, base: 2e-4)
        #expect(rate >= 0 && rate <= 2e-4 * (1 + 1e-15), "step \(step) of \(steps), warm-up \(warmup): \(rate)")
      }
    }
  }
}
