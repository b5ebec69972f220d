import MixLoRA
import Platform

/// The tensors of one run, which C reads where they are.
final class RecordedTrace: Held {
  let text: HeldText
  private let tensors: [String: HeldArray]

  /// What is asked of a run.
  struct Request {
    let batch: String
    var trace = TraceRequest()
    var optimizer = OptimizerNumbers()
    let pattern: String?

    init(_ settings: Settings) throws {
      batch = try settings.reader.string("batch")
      try settings.take(&trace.backward, "backward")
      trace.steps = try settings.reader.integer("steps", in: 0...1_000_000_000, default: 0)
      try settings.take(&trace.recomputes, "recompute")
      for (value, key) in [(\OptimizerNumbers.learningRate, "lr"), (\.weightDecay, "weight_decay")] {
        optimizer[keyPath: value] = try settings.reader.number(key, default: optimizer[keyPath: value], "a number ≥ 0") {
          $0.isFinite && $0 >= 0
        }
      }
      var isWanted = false
      if settings.reader.value("activations")?.stringValue != nil {
        pattern = try settings.reader.string("activations")
      } else {
        try settings.take(&isWanted, "activations")
        pattern = isWanted ? "*" : nil
      }
      try settings.finish()
      if let pattern { trace.activations = { POSIX.matches($0, pattern) } }
    }
  }

  /// Runs the batch; trained values and gradients are afterwards as they were.
  init<B: Backend>(_ decoder: Decoder<B>, _ batch: TraceBatch, _ request: Request, on backend: B) throws {
    let (backward, steps) = (request.trace.backward, request.trace.steps)
    guard batch.hasLabels || !backward && steps == 0 else {
      throw InterfaceError("\(backward ? "backward" : "steps") needs labels; \(request.batch) has none")
    }
    guard !decoder.trained.isEmpty || !backward && steps == 0 else {
      throw InterfaceError("found a model opened with gradients false; \(backward ? "backward" : "steps") needs one with gradients")
    }
    let kept = steps == 0 ? [] : decoder.trained.map { backend.copy($0.arena.values) }
    defer {
      for (part, values) in zip(decoder.trained, kept) { backend.copy(values, into: &part.arena.values) }
      for part in decoder.trained { backend.fill(0, &part.arena.gradients) }
    }
    var optimizer = AdamW(
      steps == 0 ? [] : decoder.parameters, learningRate: request.optimizer.learningRate, weightDecay: request.optimizer.weightDecay,
      on: backend)
    var tensors: [String: HeldArray] = [:]
    let summary = try TraceRecording(decoder, batch, request.trace, on: backend).run(
      moments: { optimizer.moments(of: $0) }, update: { optimizer.step($0) }
    ) { tensor in
      tensors[tensor.name] = tensor.values.withUnsafeBufferPointer { HeldArray(tensor.name, tensor.shape, $0) }
    }
    if let pattern = request.pattern, !summary.hasActivations {
      throw InterfaceError(
        "activations: found '\(pattern)', which no path matches; expected a pattern such as 'model.layers.0.self_attn.q_proj.output'")
    }
    self.tensors = tensors
    let provenances = try Provenances(decoder, hasBaseRows: batch.adapters.contains(nil))
    text = HeldText(
      JSON.members([
        ("tensors", .array(summary.order.map { provenances[$0]?.json ?? ["name": JSON($0)] })),
        ("losses", .members(summary.losses.map { ($0.name, .array($0.values.map { JSON($0) })) })),
        ("first_non_finite", summary.firstNonFinite.map { JSON($0) } ?? .null),
      ]).serialized())
  }

  /// A tensor by its name.
  func tensor(_ name: String) throws -> HeldArray {
    guard let tensor = tensors[name] else {
      let last = name.split(separator: ".").last.map(String.init) ?? name
      let near = tensors.keys.filter { $0.contains(last) }.sorted().prefix(3)
      throw InterfaceError(
        "found no tensor '\(name)' among \(tensors.count); expected a name of the trace"
          + (near.isEmpty ? "" : ", such as \(near.joined(separator: ", "))"))
    }
    return tensor
  }
}
