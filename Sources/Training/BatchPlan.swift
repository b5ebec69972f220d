import Tensors

/// Which samples each step sees: a pure function of seed and step, so that a resumed run sees what the unbroken one would have.
///
/// Every epoch is one shuffle of all samples (Fisher & Yates, numbers by Philox under the epoch's key), cut into batches;
/// the last, short batch of an epoch is a step as well.
public struct BatchPlan: Sendable {
  /// Number of samples.
  public let samples: Int
  /// Samples in a step.
  public let batch: Int
  /// Equal parts that a step is computed in.
  public let accumulate: Int
  private let key: RandomKey
  private var current: (epoch: Int, order: [Int])?  // an epoch is shuffled once: a step then costs its own samples only

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
  ///
  /// - Complexity: O(batch); O(samples) where another epoch than the last one asked for begins.
  public mutating func microBatches(step: Int) -> [[Int]] {
    let (epoch, index) = step.quotientAndRemainder(dividingBy: stepsPerEpoch)
    let order = current?.epoch == epoch ? current?.order ?? [] : self.order(epoch: epoch)
    current = (epoch, order)
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
