import Decoders
import Layers
import Tensors

/// The named tensors of one run, row-major on the host: what `mixlora trace` writes.
public struct Trace<Scalar: BinaryFloatingPoint> {
  /// A tensor of the trace.
  public struct NamedTensor {
    /// Its name in the contract: `logits`, `grad.<name>` …
    public let name: String
    /// Its sizes, outermost first.
    public let shape: [Int]
    /// Its values.
    public let values: [Scalar]

    /// A tensor of the given name, shape and values.
    public init(name: String, shape: [Int], values: [Scalar]) {
      self.name = name
      self.shape = shape
      self.values = values
    }

    /// True if every value is a number.
    public var isFinite: Bool { values.allSatisfy(\.isFinite) }
  }

  /// In the order in which they were formed.
  public internal(set) var tensors: [NamedTensor] = []

  /// The first tensor with a value that is not finite.
  public var firstNonFinite: NamedTensor? { tensors.first { !$0.isFinite } }

  /// True if any activation that was asked for, or its gradient, was written.
  public private(set) var hasActivations = false

  mutating func append(_ name: String, _ shape: [Int], _ values: [Scalar]) {
    tensors.append(NamedTensor(name: name, shape: shape, values: values))
  }
}

/// What is asked of a trace beside the forward pass.
public struct TraceRequest {
  /// Whether gradients are written.
  public var backward = false
  /// Optimizer steps to make.
  public var steps = 0
  /// Which activations are written, by path; nil for none.
  public var activations: ((_ path: String) -> Bool)?
  /// Whether backward forms the blocks' caches again: less memory, the same bits.
  public var recomputes = false

  /// The forward pass alone.
  public init() {}

  var needsGradients: Bool { backward || steps > 0 }
}

extension Trace {
  /// Runs the batch through the model and records what the contract names.
  ///
  /// With several adapters `loss` and `aux_loss` have one element each, and what an adapter owns is named `adapter.<number>.…`.
  /// - Parameter update: makes one optimizer step, counted from 1, from the parameters' gradients.
  /// - Throws: what the device reports.
  public static func record<B: Backend>(
    _ decoder: Decoder<B>, _ batch: TraceBatch, _ request: TraceRequest, on backend: B, update: (_ step: Int) -> Void
  ) throws -> Trace where B.Scalar == Scalar {
    let packed = PackedBatch(batch.sequences, columns: batch.columns, on: backend)
    let layout = TraceLayout(decoder, batch, packed)
    var trace = Trace()
    let always = Set(layout.owners.flatMap { owner in layout.gates(of: owner).flatMap { [$0 + ".output", $0 + ".choice"] } })
    let recorder = Recorder(on: backend) { always.contains($0) || request.activations?($0) ?? false }
    let run = Run(backend, hooks: [recorder])

    // The first pass is the one whose values are written.
    var results: [Losses<B>] = []
    var logits: [Scalar] = []
    if batch.hasLabels, request.needsGradients {
      results = try decoder.gradients(of: packed, run, recomputes: request.recomputes) { hidden in
        logits = try backend.download(decoder.logits(hidden, Run(backend)))  // the head itself passes the hooks' point
      }
    } else {
      results = try decoder.loss(of: packed, run) { hidden in logits = try backend.download(decoder.logits(hidden, run)) }
    }
    trace.append(recorder, .forward, layout, request)
    trace.hasActivations = !trace.tensors.isEmpty
    trace.appendOutputs(recorder, logits, layout)
    guard batch.hasLabels else { return trace }
    let (losses, balances) = try downloaded(results, on: backend)
    trace.append("loss", [losses.count], losses)
    trace.append("aux_loss", [balances.count], balances)
    guard request.needsGradients else { return trace }
    if request.backward {
      let before = trace.tensors.count
      trace.append(recorder, .backward, layout, request)
      if trace.tensors.count > before { trace.hasActivations = true }
      try trace.append(decoder, "grad.", on: backend) { $0.gradient }
    }
    guard request.steps > 0 else { return trace }

    var curves = [zip(losses, balances).map(+)]  // a row a step
    for step in 1..<request.steps {
      update(step)
      let (losses, balances) = try downloaded(
        decoder.gradients(of: packed, Run(backend), recomputes: request.recomputes), on: backend)
      curves.append(zip(losses, balances).map(+))
    }
    update(request.steps)
    let owners = losses.count
    trace.append(
      "loss_curve", owners == 1 ? [curves.count] : [owners, curves.count], (0..<owners).flatMap { owner in curves.map { $0[owner] } })
    try trace.append(decoder, "after.", on: backend) { $0.value }
    return trace
  }

  /// Cross-entropy and balance loss of each adapter, 0 without a router.
  private static func downloaded<B: Backend>(_ losses: [Losses<B>], on backend: B) throws -> (losses: [Scalar], balances: [Scalar])
  where B.Scalar == Scalar {
    (
      try backend.download(losses.map(\.crossEntropy)).map { $0[0] },
      try losses.map { try $0.balance.map { try backend.download($0)[0] } ?? 0 }
    )
  }

  /// Router logits of each adapter, and the logits.
  private mutating func appendOutputs<B: Backend>(_ recorder: Recorder<B>, _ logits: [Scalar], _ layout: TraceLayout<B>)
  where B.Scalar == Scalar {
    let batch = layout.batch
    for owner in layout.owners {
      let experts = owner.mixture.experts
      let layers = layout.gates(of: owner).map { batch.unpacked(recorder.value($0 + ".output"), width: experts, layout.places(of: owner)) }
      append(owner.prefix + "router_logits", [layers.count * batch.rows * batch.columns, experts], Array(layers.joined()))
    }
    append("logits", [batch.rows, batch.columns, layout.vocabulary], batch.unpacked(logits, width: layout.vocabulary, layout.places))
  }

  private mutating func append<B: Backend>(
    _ decoder: Decoder<B>, _ kind: String, on backend: B, _ whole: (Parameter<B>) -> Tensor<B>
  ) throws where B.Scalar == Scalar {
    for (part, prefix) in decoder.namedParts {
      for tensor in part.tensors {
        let part = tensor.view(of: whole(tensor.parameter))
        append(prefix + kind + tensor.name, part.shape.sizes, try backend.download(part))
      }
    }
  }
}

extension Decoder {
  /// What is trained, with what its names begin with: nothing, or of several adapters `adapter.<number>.`.
  package var namedParts: [(part: TrainedPart<B>, prefix: String)] {
    (base.map { [($0, "")] } ?? []) + adapters.enumerated().map { ($1.trained, adapters.count > 1 ? "adapter.\($0)." : "") }
  }
}

/// Where the rows of a packed batch belong in a trace.
package struct TraceLayout<B: Backend> {
  /// An adapter with routers.
  package struct Owner {
    package let number: Int
    package let prefix: String
    package let mixture: AdapterConfiguration.Mixture
  }

  package let batch: TraceBatch
  package let owners: [Owner]
  /// The place b · T + t of every packed row.
  package let places: [Int]
  package let vocabulary: Int
  private let layers: Int
  private let packed: PackedBatch<B>
  private let isPlural: Bool

  package init(_ decoder: Decoder<B>, _ batch: TraceBatch, _ packed: PackedBatch<B>) {
    self.batch = batch
    self.packed = packed
    isPlural = decoder.adapters.count > 1
    let isPlural = isPlural
    owners = decoder.adapters.enumerated().compactMap { number, adapter in
      adapter.configuration.mixture.map { Owner(number: number, prefix: isPlural ? "adapter.\(number)." : "", mixture: $0) }
    }
    places = batch.places(packed.order)
    vocabulary = decoder.configuration.vocabulary
    layers = decoder.configuration.layers
  }

  /// The paths of an adapter's routers, layer by layer.
  package func gates(of owner: Owner) -> [String] { (0..<layers).map { "\(owner.prefix)model.layers.\($0).mlp.moe_gate" } }

  /// The adapter with routers that a path belongs to.
  package func owner(ofPath path: String) -> Owner? { isPlural ? owners.first { path.hasPrefix($0.prefix) } : owners.first }

  /// The places of an adapter's rows.
  package func places(of owner: Owner) -> ArraySlice<Int> { places[packed.rows(of: owner.number)] }

  /// The places of the rows of a value: an adapter's where its path says so, the base's own, or all.
  package func places(ofPath path: String, rows: Int) -> ArraySlice<Int> {
    let parts = path.split(separator: ".", maxSplits: 2)
    if parts[0] == "adapter", let number = Int(parts[1]) { return places[packed.rows(of: number)] }
    if parts[0] == "base" { return places[packed.baseRows] }
    return rows == places.count ? places[...] : places[packed.rows(of: 0)]  // what the only adapter owns
  }
}
