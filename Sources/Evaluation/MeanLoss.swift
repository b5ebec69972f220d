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
      guard batch.labels.count > 0 else { continue }
      let run = Run(backend)
      let output = forward(batch, run, caches: .none)
      sum += Double(try backend.download(lossAlone(output.hidden, batch, run))[0]) * Double(batch.labels.count)
      columns += batch.labels.count
    }
    return (sum / Double(columns), columns)
  }
}
