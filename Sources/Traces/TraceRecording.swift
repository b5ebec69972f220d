import Decoders
import Layers
import Tensors

/// One run of a batch through a model, whose tensors go somewhere as soon as they are formed.
///
/// Nothing is kept but the routers' logits and decisions, so that memory is that of the run and of one tensor.
///
/// With several adapters `loss` and `aux_loss` have one element each, and what an adapter owns is named `adapter.<number>.…`.
public struct TraceRecording<B: Backend> {
  /// The tensor that comes next; not always in the order of the run, which ``TraceSummary/order`` has.
  public typealias Sink = (_ tensor: Trace<B.Scalar>.NamedTensor) throws -> Void
  /// The moments that an optimizer has of a parameter, in its shape.
  public typealias Moments = (_ parameter: Parameter<B>) -> (first: Tensor<B>, second: Tensor<B>)

  private let decoder: Decoder<B>
  private let batch: TraceBatch
  private let request: TraceRequest
  let backend: B
  private let packed: PackedBatch<B>
  let layout: TraceLayout<B>

  /// A run that has not begun.
  public init(_ decoder: Decoder<B>, _ batch: TraceBatch, _ request: TraceRequest, on backend: B) {
    (self.decoder, self.batch, self.request, self.backend) = (decoder, batch, request, backend)
    packed = PackedBatch(batch.sequences, columns: batch.columns, on: backend)
    layout = TraceLayout(decoder, batch, packed)
  }

  /// Runs, and hands every tensor that the contract names to `sink`.
  ///
  /// - Parameters:
  ///   - hooks: who else sees the first pass and the parameters' gradients that it leaves, before they are recorded: what they replace is
  ///     followed. A parameter's gradient is met at the path that is its name.
  ///   - laterHooks: who sees the passes behind the optimizer's first step.
  ///   - moments: what the optimizer keeps of a parameter; nil where no moments are asked for.
  ///   - update: makes one optimizer step, counted from 1, from the parameters' gradients.
  /// - Throws: what the device reports, and what `sink` throws.
  public func run(
    hooks: [any Hook<B>] = [], laterHooks: [any Hook<B>] = [], moments: Moments? = nil, update: (_ step: Int) -> Void, to sink: Sink
  ) throws -> TraceSummary {
    try withoutActuallyEscaping(sink) { sink in
      let ledger = TraceLedger(sink)
      let hook = ActivationHook(layout, request, ledger, on: backend)
      try firstPass(hooks + [hook], hook, ledger)
      if batch.hasLabels, request.needsGradients {
        try showGradients(to: hooks)
        if request.backward {
          try append(TraceNames.gradient, ledger) { $0.gradient }
        }
        if request.steps > 0 { try steps(laterHooks, moments, update, ledger) }
      }
      return ledger.summary
    }
  }

  /// The pass whose values are written.
  private func firstPass(_ hooks: [any Hook<B>], _ hook: ActivationHook<B>, _ ledger: TraceLedger<B.Scalar>) throws {
    let run = Run(backend, hooks: hooks)
    let vocabulary = layout.vocabulary
    func append(_ logits: Tensor<B>) throws {
      let values = batch.unpacked(try backend.download(logits), width: vocabulary, layout.places)
      try ledger.append("logits", [batch.rows, batch.columns, vocabulary], values, .output)
    }
    let results: [Losses<B>]
    if batch.hasLabels, request.needsGradients {
      let isAlone = hooks.count == 1
      if !isAlone { hook.head = (decoder.head, append) }  // somebody may replace what the head gives
      results = try decoder.gradients(of: packed, run, recomputes: request.recomputes ? .all : .none) { hidden in
        if isAlone { try append(decoder.logits(hidden, Run(backend))) }  // the head itself passes the hooks' point
      }
    } else {
      results = try decoder.loss(of: packed, run) { hidden in try append(decoder.logits(hidden, run)) }
    }
    for owner in layout.owners {
      let (experts, places) = (owner.mixture.experts, layout.places(of: owner))
      let layers = layout.gates(of: owner).map { batch.unpacked(hook.gateLogits[$0 + ".output"] ?? [], width: experts, places) }
      try ledger.append(
        owner.prefix + "router_logits", [layers.count * batch.rows * batch.columns, experts], Array(layers.joined()), .routers)
    }
    guard batch.hasLabels else { return }
    let (losses, balances) = try downloaded(results)
    try ledger.append("loss", [losses.count], losses, .output)
    try ledger.append("aux_loss", [balances.count], balances, .output)
    ledger.losses = [("loss", losses.map { Double($0) }), ("aux_loss", balances.map { Double($0) })]
  }

  /// Lets hooks see the parameters' gradients, or replace them; the last in the model is formed first.
  private func showGradients(to hooks: [any Hook<B>]) throws {
    for (part, prefix) in decoder.namedParts.reversed() {
      for tensor in part.tensors.reversed() {
        let point = HookPoint(path: prefix + tensor.name, phase: .backward)
        for hook in hooks where hook.listens(to: point.path) {
          let formed = tensor.view(of: tensor.parameter.gradient)
          var gradient = formed
          try hook.visit(&gradient, at: point)
          if gradient.storage !== formed.storage || gradient.offset != formed.offset { tensor.setGradient(gradient, on: backend) }
        }
      }
    }
  }

  /// The optimizer's steps: the loss before each, and what they leave.
  private func steps(
    _ hooks: [any Hook<B>], _ moments: Moments?, _ update: (_ step: Int) -> Void, _ ledger: TraceLedger<B.Scalar>
  ) throws {
    var curves = [zip(ledger.losses[0].values, ledger.losses[1].values).map { B.Scalar($0) + B.Scalar($1) }]  // a row a step
    for step in 1..<request.steps {
      update(step)
      let (losses, balances) = try downloaded(
        decoder.gradients(of: packed, Run(backend, hooks: hooks), recomputes: request.recomputes ? .all : .none))
      curves.append(zip(losses, balances).map(+))
    }
    update(request.steps)
    let owners = curves[0].count
    try ledger.append(
      "loss_curve", owners == 1 ? [curves.count] : [owners, curves.count], (0..<owners).flatMap { owner in curves.map { $0[owner] } },
      .parameters)
    if let moments, let isWanted = request.activations {
      try append(TraceNames.firstMoment, ledger, isWanted) { moments($0).first }
      try append(TraceNames.secondMoment, ledger, isWanted) { moments($0).second }
    }
    try append(TraceNames.after, ledger) { $0.value }
  }

  /// Cross-entropy and balance loss of each adapter, 0 without a router.
  private func downloaded(_ losses: [Losses<B>]) throws -> (losses: [B.Scalar], balances: [B.Scalar]) {
    (
      try backend.download(losses.map(\.crossEntropy)).map { $0[0] },
      try losses.map { try $0.balance.map { try backend.download($0)[0] } ?? 0 }
    )
  }

  /// Something of every trained tensor.
  private func append(
    _ kind: String, _ ledger: TraceLedger<B.Scalar>, _ isWanted: ((String) -> Bool)? = nil, _ whole: (Parameter<B>) -> Tensor<B>
  ) throws {
    for (part, prefix) in decoder.namedParts {
      for tensor in part.tensors {
        let name = prefix + kind + tensor.name
        guard isWanted?(name) ?? true else { continue }
        if isWanted != nil { ledger.hasActivations = true }
        let part = tensor.view(of: whole(tensor.parameter))
        try ledger.append(name, part.shape.sizes, try backend.download(part), .parameters)
      }
    }
  }
}

/// Hands tensors on, and keeps their names in the order of the run.
final class TraceLedger<Scalar: BinaryFloatingPoint> {
  /// The parts of a run; their order is the trace's.
  enum Section: Int, CaseIterable {
    case forward
    case routers
    case output
    case backward
    case parameters
  }

  var hasActivations = false
  var losses: [(name: String, values: [Double])] = []
  private let sink: (Trace<Scalar>.NamedTensor) throws -> Void
  private var names = [[String]](repeating: [], count: Section.allCases.count)
  private var nonFinite: Set<String> = []

  init(_ sink: @escaping (Trace<Scalar>.NamedTensor) throws -> Void) { self.sink = sink }

  func append(_ name: String, _ shape: [Int], _ values: [Scalar], _ section: Section) throws {
    let tensor = Trace<Scalar>.NamedTensor(name: name, shape: shape, values: values)
    names[section.rawValue].append(name)
    if !tensor.isFinite { nonFinite.insert(name) }
    try sink(tensor)
  }

  var summary: TraceSummary {
    let order = Array(names.joined())
    return TraceSummary(
      order: order, firstNonFinite: order.first { nonFinite.contains($0) }, hasActivations: hasActivations, losses: losses)
  }
}
