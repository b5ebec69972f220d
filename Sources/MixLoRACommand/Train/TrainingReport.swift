import Checkpoints
import Collectives
import Decoders
import Platform
import Training

/// What a part of a run came to, by a clock.
struct TrainingPace {
  /// What one adapter's steps of this part came to.
  struct Share {
    /// Tokens that were learnt from.
    var tokens = 0
    /// Seconds of the steps that it took part in, others' share in them included.
    var seconds = 0.0
  }

  /// What the steps came to, by adapter; nil is that of a run of one. Nothing of one that had made all its steps before.
  var shares: [String?: Share] = [:]
  /// Seconds of all, the writing included.
  var seconds = 0.0
  /// What this rank exchanged with others.
  var traffic = Traffic()
}

extension TrainingRun {
  /// Makes the steps with a line of progress for each adapter on a terminal; a signal stops the run after the step that it is in.
  ///
  /// - Throws: `Interrupted` if it was stopped, and what the run throws.
  func run(quiet: Bool) throws -> TrainingPace {
    let stop = StopSignals()
    defer { stop.end() }
    var progress = Progress(quiet: quiet || !Ranks.isFirst, steps: learners.map { (name(of: $0), $0.steps) })
    var pace = TrainingPace()
    let (start, before) = (POSIX.seconds, Ranks.current.traffic)
    try run(
      onStep: { line in
        pace.shares[line.adapter, default: TrainingPace.Share()].add(line)
        progress.show(line)
      }, clock: { POSIX.seconds }, shouldStop: { stop.isAsked })
    progress.end()
    guard step == steps else {
      if Ranks.isFirst {
        let who = Ranks.current.size > 1 ? " (rank \(stoppingRank ?? 0) was told to stop)" : ""
        writeError("interrupted after step \(step)\(who); mixlora train with the same options and --resume goes on from there\n")
      }
      throw Interrupted()
    }
    pace.seconds = POSIX.seconds - start
    let after = Ranks.current.traffic
    (pace.traffic.bytes, pace.traffic.seconds) = (after.bytes - before.bytes, after.seconds - before.seconds)
    pace.traffic.waiting = after.waiting - before.waiting
    return pace
  }

  /// What an adapter is called among several.
  private func name(of learner: Learner<B>) -> String? { learners.count > 1 ? learner.recipe.name : nil }

  /// Says how the run went, a line an adapter.
  func report(_ pace: TrainingPace, out: String, json: Bool) -> String {
    let lines = learners.map { report($0, pace, out: name(of: $0).map { "\(out)/\($0)" } ?? out, json: json) }
    guard Ranks.current.size > 1 else { return lines.joined(separator: "\n") }
    let exchange: JSON = [
      "ranks": JSON(Ranks.current.size), "sent_bytes": JSON(pace.traffic.bytes), "exchange_seconds": JSON(pace.traffic.seconds),
      "waiting_seconds": JSON(pace.traffic.waiting), "seconds": JSON(pace.seconds),
    ]
    func share(_ seconds: Double) -> String { fixed(100 * seconds / max(pace.seconds, 1e-9), 1) }
    let text =
      "\(Ranks.current.size) ranks; the first sent \(fixed(Double(pace.traffic.bytes) / 1e6, 1)) MB in all and spent "
      + "\(share(pace.traffic.seconds)) % of the time in exchanges, \(share(pace.traffic.waiting)) % waiting for the others to come"
    return (lines + [json ? exchange.serialized() : text]).joined(separator: "\n")
  }

  private func report(_ learner: Learner<B>, _ pace: TrainingPace, out: String, json: Bool) -> String {
    let (metrics, isFull) = (learner.metrics, learner.recipe.method == .full)
    let share = pace.shares[name(of: learner)]
    let rate = share.map { Double($0.tokens) / max($0.seconds, 1e-9) }
    if json {
      let object: JSON = [
        "steps": JSON(metrics.count), "loss_first": metrics.first.map { JSON($0.loss) } ?? nil,
        "loss_last": metrics.last.map { JSON($0.loss) } ?? nil,
        "tokens": JSON(share?.tokens ?? 0), "seconds": JSON(share?.seconds ?? 0), "tokens_per_second": rate.map { JSON($0) } ?? nil,
        "samples_cut": JSON(learner.cutSamples), "samples_dropped": JSON(learner.droppedSamples),
        "trainable_parameters": JSON(parameterCount(of: learner)), "peak_resident_bytes": JSON(POSIX.peakResidentBytes),
        "adapter": isFull ? nil : JSON(out),
      ]
      return object.serialized()
    }
    let validated = metrics.last { $0.validationLoss != nil }?.validationLoss
    return (name(of: learner).map { $0 + ": " } ?? "")
      + "\(metrics.count) steps, loss \(fixed(metrics.first?.loss ?? .nan, 4)) → \(fixed(metrics.last?.loss ?? .nan, 4)), "
      + (validated.map { "validation \(fixed($0, 4)), " } ?? "") + (rate.map { "\(fixed($0, 1)) tokens/s; " } ?? "all made before; ")
      + "\(isFull ? "the model, metrics.jsonl and loss.svg" : "adapter, metrics.jsonl, loss.svg and experts.svg") are in \(out)"
  }
}

extension TrainingPace.Share {
  /// Adds a step.
  fileprivate mutating func add(_ line: Metrics) {
    tokens += line.tokens
    seconds += Double(line.tokens) / line.tokensPerSecond
  }
}
