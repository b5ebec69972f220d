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

  /// One run: what `hook` sees, then losses, the gradients of parameters, and the steps of the optimizer.
  ///
  /// - Parameters:
  ///   - precision: what every operation rounds to; nil for the oracle.
  ///   - zeroedBranches: branches of modules whose name contains it add nothing.
  ///   - assignments: trained tensors that get the values of others.
  ///   - rounded: roles of trained tensors whose values are rounded to bfloat16.
  ///   - laterHook: sees the passes behind the first step.
  ///   - gradient: replaces the gradient of a parameter's tensor before the first step; nil leaves it.
  ///   - emit: hears of every value that no hook sees, by its name.
  func run(
    _ hook: any Hook<B>, laterHook: any Hook<B>, precision: Precision?, seed: UInt64, backward: Bool, steps: Steps,
    zeroedBranches: String? = nil,
    assignments: [(to: String, from: String)] = [], rounded: [Parameter<B>.Role] = [],
    gradient: (_ name: String) throws -> [Double]?, emit: (_ name: String, _ shape: [Int], _ values: [Double]) throws -> Void
  ) throws {
    backend.precision = precision
    backend.seed = seed
    defer { backend.precision = nil }
    for (part, values) in zip(decoder.trained, initialValues) {
      backend.copy(values, into: &part.arena.values)
      backend.fill(0, &part.arena.gradients)
    }
    if let zeroedBranches {
      for parameter in decoder.parameters where parameter.role == .b && (zeroedBranches.isEmpty || parameter.name.contains(zeroedBranches))
      {
        backend.fill(0, &parameter.value)
      }
    }
    try prepare(assignments, rounded: rounded)
    let run = Run(backend, hooks: [hook])
    guard batch.hasLabels else {
      _ = try decoder.loss(of: packed, run) { hidden in _ = decoder.logits(hidden, run) }
      return
    }
    let results =
      backward || steps.count > 0
      ? try decoder.gradients(of: packed, run) : try decoder.loss(of: packed, run) { hidden in _ = decoder.logits(hidden, run) }
    var losses = try Self.losses(results, on: backend)
    try emit("loss", [losses.loss.count], losses.loss)
    try emit("aux_loss", [losses.balance.count], losses.balance)
    guard backward || steps.count > 0 else { return }
    for (part, prefix) in decoder.namedParts.reversed() {
      for tensor in part.tensors.reversed() {
        let name = "\(prefix)grad.\(tensor.name)"
        let view = tensor.view(of: tensor.parameter.gradient)
        try emit(name, view.shape.sizes, try backend.download(view))
        if steps.count > 0, let replaced = try gradient(name) { setGradient(tensor, replaced) }
      }
    }
    guard steps.count > 0 else { return }
    var optimizer = AdamW(
      decoder.parameters, learningRate: steps.learningRate, weightDecay: steps.weightDecay, on: backend)
    var curve = [zip(losses.loss, losses.balance).map(+)]
    for step in 1..<steps.count {
      optimizer.step(step)
      losses = try Self.losses(try decoder.gradients(of: packed, Run(backend, hooks: [laterHook])), on: backend)
      curve.append(zip(losses.loss, losses.balance).map(+))
    }
    optimizer.step(steps.count)
    let owners = curve[0].count
    try emit("loss_curve", owners == 1 ? [curve.count] : [owners, curve.count], (0..<owners).flatMap { owner in curve.map { $0[owner] } })
    for (part, prefix) in decoder.namedParts {
      for tensor in part.tensors {
        let view = tensor.view(of: tensor.parameter.value)
        try emit("\(prefix)after.\(tensor.name)", view.shape.sizes, try backend.download(view))
        let moments = optimizer.moments(of: tensor.parameter)
        for (kind, moment) in [("exp_avg", moments.first), ("exp_avg_sq", moments.second)] {
          let view = tensor.view(of: moment)
          try emit("\(prefix)\(kind).\(tensor.name)", view.shape.sizes, try backend.download(view))
        }
      }
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

  private static func losses(_ results: [Losses<B>], on backend: B) throws -> (loss: [Double], balance: [Double]) {
    (
      try backend.download(results.map(\.crossEntropy)).map { $0[0] },
      try results.map { try $0.balance.map { try backend.download($0)[0] } ?? 0 }
    )
  }

  private func setGradient(_ tensor: TrainedTensor<B>, _ values: [Double]) {
    let whole = tensor.parameter.gradient
    let part = tensor.view(of: whole)
    guard values.count == part.shape.count, values.allSatisfy(\.isFinite) else { return }
    let uploaded = backend.upload(values, part.shape)
    // The part's place in its parameter: whole rows, or columns of every row.
    let begin = part.offset - whole.offset
    let (row, column) = (begin / whole.rowStride, begin % whole.rowStride)
    backend.copy(
      uploaded, into: &tensor.parameter.gradient, rows: row..<row + part.rowCount, columns: column..<column + part.columnCount)
  }
}
