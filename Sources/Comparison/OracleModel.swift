import Checkpoints
import Conformance
import Decoders
import Layers
import Tensors
import Traces
import Training

/// A model and a batch that run again and again: exactly or rounded, by themselves or on a candidate's values.
final class OracleModel<Exact: Backend & MatrixFactorizing> where Exact.Scalar == Double {
  typealias B = RoundingBackend<Exact>

  /// What the optimizer steps of a run are.
  struct Steps: Sendable {
    var count = 0
    var learningRate = 1e-3
    var weightDecay = 0.01
  }

  let backend: B
  let decoder: Decoder<B>
  let batch: TraceBatch
  let packed: PackedBatch<B>
  let layout: TraceLayout<B>
  private let initialValues: [Tensor<B>]

  init(_ decoder: Decoder<B>, _ batch: TraceBatch, on backend: B) {
    (self.backend, self.decoder, self.batch) = (backend, decoder, batch)
    packed = PackedBatch(batch.sequences, columns: batch.columns, on: backend)
    layout = TraceLayout(decoder, batch, packed)
    initialValues = decoder.trained.map { backend.copy($0.arena.values) }
  }

  /// One run: what `hook` sees, the gradients of parameters among it, and then what no hook sees: losses and what the optimizer leaves.
  ///
  /// - Parameters:
  ///   - precision: what every operation rounds to; nil for the oracle.
  ///   - zeroedBranches: branches of modules whose name contains it add nothing.
  ///   - assignments: trained tensors that get the values of others.
  ///   - rounded: roles of trained tensors whose values are rounded to bfloat16.
  ///   - laterHook: sees the passes behind the first step.
  ///   - emit: hears of every value that no hook sees, by its name.
  func run(
    _ hook: any Hook<B>, laterHook: any Hook<B>, precision: Precision?, seed: UInt64, backward: Bool, steps: Steps,
    zeroedBranches: String? = nil,
    assignments: [(to: String, from: String)] = [], rounded: [Parameter<B>.Role] = [],
    emit: (_ name: String, _ shape: [Int], _ values: [Double]) throws -> Void
  ) throws {
    backend.precision = precision
    backend.seed = seed
    defer {
      backend.precision = nil
      for (part, values) in zip(decoder.trained, initialValues) { backend.copy(values, into: &part.arena.values) }
    }
    for part in decoder.trained { backend.fill(0, &part.arena.gradients) }
    if let zeroedBranches {
      for parameter in decoder.parameters where parameter.role == .b && (zeroedBranches.isEmpty || parameter.name.contains(zeroedBranches))
      {
        backend.fill(0, &parameter.value)
      }
    }
    try prepare(assignments, rounded: rounded)
    var request = TraceRequest()
    (request.backward, request.steps) = (backward, steps.count)
    request.activations = { $0.contains("exp_avg") }  // the moments; of points the hook tells
    var optimizer = AdamW(
      steps.count > 0 ? decoder.parameters : [], learningRate: steps.learningRate, weightDecay: steps.weightDecay, on: backend)
    _ = try TraceRecording(decoder, batch, request, on: backend).run(
      hooks: [hook], laterHooks: [laterHook], moments: { optimizer.moments(of: $0) }, update: { optimizer.step($0) }
    ) { tensor in
      let isSeen = tensor.name.hasSuffix("logits") || HookPoint(named: tensor.name).phase == .backward
      if !isSeen { try emit(tensor.name, tensor.shape, tensor.values) }
    }
  }

  private func prepare(_ assignments: [(to: String, from: String)], rounded: [Parameter<B>.Role]) throws {
    if !assignments.isEmpty {
      let tensors = Dictionary(decoder.namedParts.flatMap { part, prefix in part.tensors.map { (prefix + $0.name, $0) } }) { first, _ in
        first
      }
      let values = assignments.map { tensors[$0.from].map { backend.copy($0.view(of: $0.parameter.value)) } }
      for (assignment, value) in zip(assignments, values) {
        if let value, let tensor = tensors[assignment.to], tensor.view(of: tensor.parameter.value).shape == value.shape {
          tensor.set(value, on: backend)
        }
      }
    }
    for parameter in decoder.parameters where rounded.contains(parameter.role) {
      var values = try backend.download(parameter.value)
      Precision.bfloat16.round(&values)
      parameter.value = backend.upload(values, parameter.shape)
    }
  }
}
