import CPUBackend
import Checkpoints
import Decoders
import Tensors
import Tokenization
import Training

extension TrainingRun {
  /// Says how the run went.
  func report(_ summary: Summary) {
    let lines = summary.metrics
    let rate = Double(summary.tokens) / max(summary.seconds, 1e-9)
    if options.json {
      let object: JSON = [
        "steps": JSON(lines.count), "loss_first": lines.first.map { JSON($0.loss) } ?? nil,
        "loss_last": lines.last.map { JSON($0.loss) } ?? nil,
        "tokens": JSON(lines.reduce(0) { $0 + $1.tokens }), "seconds": JSON(summary.seconds),
        "tokens_per_second": JSON(rate),
        "trainable_parameters": JSON(summary.parameters), "peak_resident_bytes": JSON(Machine.peakResidentBytes),
        "adapter": options.method == .full ? nil : JSON(options.out),
      ]
      return print(object.serialized())
    }
    let validated = lines.last { $0.validationLoss != nil }?.validationLoss
    print(
      "\(lines.count) steps, loss \(fixed(lines.first?.loss ?? .nan, 4)) → \(fixed(lines.last?.loss ?? .nan, 4)), "
        + (validated.map { "validation \(fixed($0, 4)), " } ?? "") + "\(fixed(rate, 1)) tokens/s; "
        + "\(options.method == .full ? "the model, metrics.jsonl and loss.svg" : "adapter, metrics.jsonl, loss.svg and experts.svg") are in \(options.out)"
    )
  }

  /// What the run would be: parameters, memory, the first sample.
  func dryRun(_ decoder: Decoder<CPUFloat>) -> String {
    let trained = decoder.parameters.reduce(0) { $0 + $1.value.shape.count }
    let frozen = (decoder.frozenMatrices + [decoder.headMatrix]).filter { $0.parameter == nil }.reduce(0) { $0 + $1.shape.count }
    let sample = samples[0]
    let marked = sample.ids.indices.map { i in
      let text = tokenizer.decodeText([sample.ids[i]])
      return sample.counts[i] ? "[\(text)]" : text
    }
    let tokens = samples.reduce(0) { $0 + $1.ids.count }
    if options.json {
      let object: JSON = [
        "trainable_parameters": JSON(trained), "frozen_parameters": JSON(frozen), "samples": JSON(samples.count), "tokens": JSON(tokens),
        "longest": JSON(samples.map(\.ids.count).max() ?? 0), "steps": JSON(steps), "peak_resident_bytes": JSON(Machine.peakResidentBytes),
        "first_sample": JSON(marked.joined()),
      ]
      return object.serialized()
    }
    return """
      trained parameters   \(trained) (\(fixed(100 * Double(trained) / Double(trained + frozen), 2)) % of \(trained + frozen))
      samples              \(samples.count), \(tokens) tokens, longest \(samples.map(\.ids.count).max() ?? 0)
      steps                \(steps) of \(plan.batch) samples, \(plan.stepsPerEpoch) to an epoch
      memory so far        \(fixed(Double(Machine.peakResidentBytes) / 1_073_741_824, 2)) GiB; gradients and AdamW's moments add \(fixed(12 * Double(trained) / 1_073_741_824, 2)) GiB
      first sample, counted tokens in brackets:
      \(marked.joined())
      """
  }
}
