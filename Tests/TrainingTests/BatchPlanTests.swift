import Testing

@testable import Training

@Suite struct BatchPlanTests {
  @Test func anEpochHasEverySampleOnceAndTheNextAnotherOrder() {
    var plan = BatchPlan(samples: 11, batch: 4, accumulate: 2, seed: 1)
    #expect(plan.stepsPerEpoch == 3)
    let epochs = (0..<2).map { epoch in (0..<3).flatMap { plan.microBatches(step: 3 * epoch + $0).flatMap { $0 } } }
    for epoch in epochs { #expect(epoch.sorted() == Array(0..<11)) }
    #expect(epochs[0] != epochs[1])
    #expect(plan.microBatches(step: 0).map(\.count) == [2, 2] && plan.microBatches(step: 2).map(\.count) == [2, 1])
  }

  @Test func aStepIsTheSameWhateverWasAskedForBefore() {
    var forward = BatchPlan(samples: 11, batch: 4, accumulate: 1, seed: 1)
    let inOrder = (0..<9).map { forward.microBatches(step: $0) }
    var backward = forward
    for step in (0..<9).reversed() { #expect(backward.microBatches(step: step) == inOrder[step], "step \(step)") }
  }
}
