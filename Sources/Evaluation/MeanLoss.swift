import Decoders
import Layers
import Samples
import Tensors

extension Decoder {
  /// The mean cross-entropy over all columns of `samples` that count, and how many these are; without dropout.
  ///
  ///     loss = Σ −log p(token | those before it) / columns
  ///
  /// - Parameter batch: samples that are computed together.
  /// - Throws: what the device reports.
  public func meanLoss(of samples: [EncodedSample], batch size: Int, on backend: B) throws -> (loss: Double, columns: Int) {
    var (sum, columns) = (0.0, 0)
    for start in stride(from: 0, to: samples.count, by: size) {
      let batch = PackedBatch(samples[start..<min(start + size, samples.count)].map(\.sequence), on: backend)
      let labels = batch.labels(of: 0).count
      guard labels > 0 else { continue }
      sum += Double(try backend.download(loss(of: batch, Run(backend))[0].crossEntropy)[0]) * Double(labels)
      columns += labels
    }
    return (sum / Double(columns), columns)
  }
}
