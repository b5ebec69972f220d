import Checkpoints
import Decoders
import Platform
import Samples
import Tensors
import Training

/// What a run would be, for `--dry-run`: parameters and the first sample of each adapter, memory.
struct TrainingPreview<B: Backend> {
  private let run: TrainingRun<B>
  private let plan: MemoryPlan

  init(_ run: TrainingRun<B>, held: HeldMemory) throws {
    self.run = run
    plan = try run.memory ?? run.memoryPlan(held: held)
  }

  func text(json: Bool) -> String {
    let parts = zip(run.learners, plan.own).map { json ? self.json($0).serialized() : text($0, own: $1) }
    guard run.learners.count > 1 else { return parts[0] }
    return (parts + [json ? sharedJSON.serialized() : sharedText]).joined(separator: json ? "\n" : "\n\n")
  }

  /// What to say where the run needs more than the `most` bytes that this process may have; nil where it does not.
  func shortage(of most: Double) -> SettingsText? {
    guard Double(plan.total) > most else { return nil }
    return
      "the run needs \(gibibytes(Double(plan.total))) by arithmetic, and this process may have \(gibibytes(most)): \(setting: "memory"), \(setting: "recompute") or a smaller \(setting: "batch") make it less"
  }

  // MARK: One adapter

  private func json(_ learner: Learner<B>) -> JSON {
    var object = JSON.Object()
    if run.learners.count > 1 { object["adapter"] = learner.recipe.name.map { JSON($0) } ?? .null }
    let members: KeyValuePairs<String, JSON> = [
      "trainable_parameters": JSON(run.parameterCount(of: learner)), "frozen_parameters": JSON(frozen),
      "samples": JSON(learner.samples.count), "tokens": JSON(tokens(learner)), "longest": JSON(longest(learner)),
      "samples_cut": JSON(learner.cutSamples), "samples_dropped": JSON(learner.droppedSamples), "steps": JSON(learner.steps),
      "peak_resident_bytes": JSON(POSIX.peakResidentBytes), "gradient_buffers": JSON(run.gradientBuffers),
      "first_sample": JSON(firstSample(learner)),
    ]
    for (key, value) in members { object[key] = value }
    if run.learners.count == 1 { object["memory"] = planJSON }
    return .object(object)
  }

  private func text(_ learner: Learner<B>, own: Int) -> String {
    let trained = run.parameterCount(of: learner)
    let title = run.learners.count > 1 ? "adapter              \(learner.recipe.name ?? "")\n" : ""
    return title + """
      trained parameters   \(trained) (\(fixed(100 * Double(trained) / Double(trained + frozen), 2)) % of \(trained + frozen))
      samples              \(learner.samples.count), \(tokens(learner)) tokens, longest \(longest(learner)); \(learner.cutSamples) cut, \(learner.droppedSamples) dropped
      steps                \(learner.steps) of \(learner.recipe.batch) samples, \(learner.stepsPerEpoch) to an epoch
      memory of its own    \(gibibytes(Double(own))): values, gradients\(inBuffers) and moments
      \(run.learners.count == 1 ? planText + "\n" : "")first sample, counted tokens in brackets:
      \(firstSample(learner))
      """
  }

  private var frozen: Int {
    (run.decoder.blockMatrices + [run.decoder.head.weight]).filter { $0.parameter == nil }.reduce(0) { $0 + $1.shape.count }
  }

  private func tokens(_ learner: Learner<B>) -> Int { learner.samples.reduce(0) { $0 + $1.ids.count } }

  private func longest(_ learner: Learner<B>) -> Int { learner.samples.map(\.ids.count).max() ?? 0 }

  private func firstSample(_ learner: Learner<B>) -> String {
    let sample = learner.samples[0]
    return sample.ids.indices.map { i in
      let text = self.text(of: sample.ids[i], after: i > 0 ? sample.ids[i - 1] : nil)
      return sample.isLabel[i] ? "[\(text)]" : text
    }.joined()
  }

  /// What a token adds to the text: by itself some tokenizers take the blank before it for the beginning of a text and drop it.
  private func text(of id: Int32, after last: Int32?) -> String {
    let tokenizer = run.tokenizer
    guard let last else { return tokenizer.decodeText([id]) }
    let (before, both) = (tokenizer.decodeText([last]), tokenizer.decodeText([last, id]))
    return both.utf8.starts(with: before.utf8)
      ? String(decoding: both.utf8.dropFirst(before.utf8.count), as: UTF8.self) : tokenizer.decodeText([id])
  }

  private var inBuffers: String { run.gradientBuffers > 1 ? " (\(run.gradientBuffers) buffers, to add up a step's parts)" : "" }

  // MARK: What they share

  private var memory: SharedMemory { SharedMemory(shared: Double(plan.shared), own: plan.own.map(Double.init)) }

  private var sharedJSON: JSON {
    [
      "adapters": JSON(run.learners.count), "shared_bytes": JSON(plan.shared), "own_bytes": .array(plan.own.map { JSON($0) }),
      "memory": planJSON, "bytes_together": JSON(Int(memory.together)), "bytes_apart": JSON(Int(memory.apart)), "saved": JSON(memory.saved),
    ]
  }

  private var sharedText: String {
    "memory without activations: \(gibibytes(memory.together)) in one run, of which \(gibibytes(memory.shared)) are the base and what else is "
      + "held once; \(gibibytes(memory.apart)) in a run for each of \(run.learners.count) adapters: \(fixed(100 * memory.saved, 1)) % less\n"
      + planText
  }

  // MARK: What all of it needs

  private var planJSON: JSON {
    [
      "held_bytes": JSON(plan.held), "added_bytes": JSON(plan.added), "total_bytes": JSON(plan.total),
      "recomputed_blocks": JSON(plan.recomputedBlocks), "blocks": JSON(plan.blocks),
    ]
  }

  private var planText: String {
    "memory in all        \(gibibytes(Double(plan.total))) by arithmetic: \(gibibytes(Double(plan.held))) before the steps, with what threads will need, "
      + "\(gibibytes(Double(plan.added))) by the steps with \(plan.recomputedBlocks) of \(plan.blocks) blocks recomputed"
  }

  private func gibibytes(_ bytes: Double) -> String { "\(fixed(bytes / 1_073_741_824, 2)) GiB" }
}
