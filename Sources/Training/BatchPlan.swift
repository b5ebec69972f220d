import Tensors

/// Which samples each step sees: a pure function of seed and step, so that a resumed run sees what the unbroken one would have.
///
/// Every epoch is one shuffle of all samples (Fisher & Yates, numbers by Philox under the epoch's key), cut into batches;
/// the last, short batch of an epoch is a step as well.
public struct BatchPlan: Equatable, Sendable {
  /// Number of samples.
  public let samples: Int
  /// Samples in a step.
  public let batch: Int
  /// Equal parts that a step is computed in.
  public let accumulate: Int
  private let key: RandomKey

  /// A plan over `samples` samples. `accumulate` divides `batch`.
  public init(samples: Int, batch: Int, accumulate: Int, seed: UInt64) {
    precondition(samples > 0 && batch > 0 && accumulate > 0 && batch % accumulate == 0)
    self.samples = samples
    self.batch = batch
    self.accumulate = accumulate
    key = RandomKey(seed: seed)
  }

  /// Steps in one pass over the data.
  public var stepsPerEpoch: Int { (samples + batch - 1) / batch }

  /// The micro-batches of step `step`, counted from 0, as sample numbers in the order of the data.
  public func microBatches(step: Int) -> [[Int]] {
    let (epoch, index) = step.quotientAndRemainder(dividingBy: stepsPerEpoch)
    return microBatches(index, of: order(epoch: epoch))
  }

  /// The micro-batches of every step of the epoch that `step` lies in.
  func epoch(ofStep step: Int) -> [[[Int]]] {
    let order = order(epoch: step / stepsPerEpoch)
    return (0..<stepsPerEpoch).map { microBatches($0, of: order) }
  }

  private func microBatches(_ index: Int, of order: [Int]) -> [[Int]] {
    let chosen = order[index * batch..<min((index + 1) * batch, samples)]
    let size = batch / accumulate
    return stride(from: chosen.startIndex, to: chosen.endIndex, by: size).map { Array(chosen[$0..<min($0 + size, chosen.endIndex)]) }
  }

  /// The samples in the order of an epoch.
  func order(epoch: Int) -> [Int] {
    let key = key.derived("epoch.\(epoch)", "shuffle")
    var order = Array(0..<samples)
    for i in stride(from: samples - 1, to: 0, by: -1) {
      let numbers = Philox.numbers(counter: SIMD4(UInt32(truncatingIfNeeded: i), UInt32(truncatingIfNeeded: i >> 32), 0, 0), key: key)
      // A 64-bit number times i + 1, upper half: uniform to 2⁻⁶⁴ (Lemire 2019).
      let wide = (UInt64(numbers[1]) << 32 | UInt64(numbers[0])).multipliedFullWidth(by: UInt64(i + 1))
      order.swapAt(i, Int(wide.high))
    }
    return order
  }
}
