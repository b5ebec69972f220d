import Collectives
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
  ///   - ranks: who share out the batches; each gets the loss of all, to the bit that of one.
  /// - Throws: what the device reports.
  public func meanLoss(
    of samples: [EncodedSample], adapter: Int = 0, batch size: Int, ranks: any Collective = Solo(), on backend: B
  ) throws -> (loss: Double, columns: Int) {
    try meanLosses(of: samples, adapters: [adapter], batch: size, ranks: ranks, on: backend)[0]
  }

  /// The same of several adapters, each over all samples, in the same batches.
  ///
  /// - Throws: what the device reports.
  public func meanLosses(
    of samples: [EncodedSample], adapters: [Int], batch size: Int, ranks: any Collective = Solo(), on backend: B
  ) throws -> [(loss: Double, columns: Int)] {
    let starts = Array(stride(from: 0, to: samples.count, by: size))
    let columns = starts.map { start in samples[start..<min(start + size, samples.count)].reduce(0) { $0 + $1.sequence.labeledColumns } }
    var losses = Array(repeating: 0.0, count: starts.count * adapters.count)  // of all columns of a batch, by batch and adapter
    for (n, start) in starts.enumerated() where n % ranks.size == ranks.rank && columns[n] > 0 {
      let part = samples[start..<min(start + size, samples.count)].map(\.sequence)
      let batch = PackedBatch(adapters.flatMap { adapter in part.map { $0.serving(adapter) } }, on: backend)
      let found = try loss(of: batch, Run(backend))
      for (i, value) in try backend.download(adapters.map { found[$0].crossEntropy }).enumerated() {
        losses[n * adapters.count + i] = Double(value[0]) * Double(columns[n])
      }
    }
    losses = try ranks.sum(losses)
    let count = columns.reduce(0, +)
    return adapters.indices.map { i in (starts.indices.reduce(0) { $0 + losses[$1 * adapters.count + i] } / Double(count), count) }
  }
}

extension PackedSequence {
  /// How many of its tokens predict a label.
  fileprivate var labeledColumns: Int { labels.count { $0 != nil } }
}
