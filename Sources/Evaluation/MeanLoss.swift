import Decoders
import Layers
import Samples
import Tensors

extension Decoder {
  /// The mean cross-entropy over all columns of `samples` that count, and how many these are; without dropout.
  ///
  ///     loss = Σ −log p(token | those before it) / columns
  ///
  /// - Parameters:
  ///   - adapter: the number of the adapter that is asked; of no matter where there is none.
  ///   - batch: samples that are computed together.
  /// - Throws: what the device reports.
  public func meanLoss(
    of samples: [EncodedSample], adapter: Int = 0, batch size: Int, on backend: B
  ) throws -> (loss: Double, columns: Int) {
    try meanLosses(of: samples, adapters: [adapter], batch: size, on: backend)[0]
  }

  /// The same of several adapters, each over all samples, in the same batches.
  ///
  /// - Throws: what the device reports.
  public func meanLosses(
    of samples: [EncodedSample], adapters: [Int], batch size: Int, on backend: B
  ) throws -> [(loss: Double, columns: Int)] {
    var sums = adapters.map { _ in (loss: 0.0, columns: 0) }
    for start in stride(from: 0, to: samples.count, by: size) {
      let part = samples[start..<min(start + size, samples.count)].map(\.sequence)
      let batch = PackedBatch(adapters.flatMap { adapter in part.map { $0.serving(adapter) } }, on: backend)
      let losses = try loss(of: batch, Run(backend))
      let values = try backend.download(adapters.map { losses[$0].crossEntropy })
      for (i, adapter) in adapters.enumerated() {
        let labels = batch.labels(of: adapter).count
        guard labels > 0 else { continue }
        sums[i].loss += Double(values[i][0]) * Double(labels)
        sums[i].columns += labels
      }
    }
    return sums.map { ($0.loss / Double($0.columns), $0.columns) }
  }
}
