import Checkpoints
import Decoders
import Platform
import Training

/// What a part of a run came to, by a clock.
struct TrainingPace {
  /// Tokens that were learnt from.
  var tokens = 0
  /// Seconds, the writing included.
  var seconds = 0.0
}

extension TrainingRun {
  /// Makes the steps with a line of progress on a terminal; a signal stops the run after the step that it is in.
  ///
  /// - Throws: `Interrupted` if it was stopped, and what the run throws.
  func run(quiet: Bool) throws -> TrainingPace {
    let stop = StopSignals()
    defer { stop.end() }
    var progress = Progress(quiet: quiet, steps: steps)
    var pace = TrainingPace()
    let start = POSIX.seconds
    try run(
      onStep: { line in
        pace.tokens += line.tokens
        progress.show(line)
      }, clock: { POSIX.seconds }, shouldStop: { stop.isAsked })
    progress.end()
    guard step == steps else {
      writeError("interrupted after step \(step); mixlora train with the same options and --resume goes on from there\n")
      throw Interrupted()
    }
    pace.seconds = POSIX.seconds - start
    return pace
  }

  /// Says how the run went.
  func report(_ pace: TrainingPace, out: String, json: Bool) -> String {
    let rate = Double(pace.tokens) / max(pace.seconds, 1e-9)
    if json {
      let object: JSON = [
        "steps": JSON(metrics.count), "loss_first": metrics.first.map { JSON($0.loss) } ?? nil,
        "loss_last": metrics.last.map { JSON($0.loss) } ?? nil,
        "tokens": JSON(metrics.reduce(0) { $0 + $1.tokens }), "seconds": JSON(pace.seconds),
        "tokens_per_second": JSON(rate),
        "samples_cut": JSON(cutSamples), "samples_dropped": JSON(droppedSamples),
        "trainable_parameters": JSON(parameterCount), "peak_resident_bytes": JSON(POSIX.peakResidentBytes),
        "adapter": recipe.method == .full ? nil : JSON(out),
      ]
      return object.serialized()
    }
    let validated = metrics.last { $0.validationLoss != nil }?.validationLoss
    return "\(metrics.count) steps, loss \(fixed(metrics.first?.loss ?? .nan, 4)) → \(fixed(metrics.last?.loss ?? .nan, 4)), "
      + (validated.map { "validation \(fixed($0, 4)), " } ?? "") + "\(fixed(rate, 1)) tokens/s; "
      + "\(recipe.method == .full ? "the model, metrics.jsonl and loss.svg" : "adapter, metrics.jsonl, loss.svg and experts.svg") are in \(out)"
  }

  /// What the run would be: parameters, memory, the first sample.
  func preview(json: Bool) -> String {
    let trained = parameterCount
    let frozen = (decoder.blockMatrices + [decoder.head.weight]).filter { $0.parameter == nil }.reduce(0) { $0 + $1.shape.count }
    let sample = samples[0]
    let marked = sample.ids.indices.map { i in
      let text = self.text(of: sample.ids[i], after: i > 0 ? sample.ids[i - 1] : nil)
      return sample.isLabel[i] ? "[\(text)]" : text
    }
    let tokens = samples.reduce(0) { $0 + $1.ids.count }
    let longest = samples.map(\.ids.count).max() ?? 0
    if json {
      let object: JSON = [
        "trainable_parameters": JSON(trained), "frozen_parameters": JSON(frozen), "samples": JSON(samples.count), "tokens": JSON(tokens),
        "longest": JSON(longest), "samples_cut": JSON(cutSamples), "samples_dropped": JSON(droppedSamples), "steps": JSON(steps),
        "peak_resident_bytes": JSON(POSIX.peakResidentBytes),
        "first_sample": JSON(marked.joined()),
      ]
      return object.serialized()
    }
    return """
      trained parameters   \(trained) (\(fixed(100 * Double(trained) / Double(trained + frozen), 2)) % of \(trained + frozen))
      samples              \(samples.count), \(tokens) tokens, longest \(longest); \(cutSamples) cut, \(droppedSamples) dropped
      steps                \(steps) of \(recipe.batch) samples, \(stepsPerEpoch) to an epoch
      memory so far        \(fixed(Double(POSIX.peakResidentBytes) / 1_073_741_824, 2)) GiB; gradients and AdamW's moments add \(fixed(12 * Double(trained) / 1_073_741_824, 2)) GiB
      first sample, counted tokens in brackets:
      \(marked.joined())
      """
  }

  /// What a token adds to the text: by itself some tokenizers take the blank before it for the beginning of a text and drop it.
  private func text(of id: Int32, after last: Int32?) -> String {
    guard let last else { return tokenizer.decodeText([id]) }
    let (before, both) = (tokenizer.decodeText([last]), tokenizer.decodeText([last, id]))
    return both.utf8.starts(with: before.utf8)
      ? String(decoding: both.utf8.dropFirst(before.utf8.count), as: UTF8.self) : tokenizer.decodeText([id])
  }
}
