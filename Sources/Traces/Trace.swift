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

  /// True if any activation was written.
  public var hasActivations: Bool { tensors.contains { $0.name.hasPrefix("model.") } }

  mutating func append(_ name: String, _ shape: [Int], _ values: [Scalar]) {
    tensors.append(NamedTensor(name: name, shape: shape, values: values))
  }
}

/// What is asked of a trace beside the forward pass.
public struct TraceRequest {
  /// Whether gradients are written.
  public var backward = false
  /// Optimiser steps to make.
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
  /// - Parameter update: makes one optimiser step, counted from 1, from the parameters' gradients.
  /// - Throws: what the device reports.
  public static func record<B: Backend>(
    _ decoder: Decoder<B>, _ batch: TraceBatch, _ request: TraceRequest, on backend: B, update: (_ step: Int) -> Void
  ) throws -> Trace where B.Scalar == Scalar {
    var trace = Trace()
    let packed = PackedBatch(batch.sequences, on: backend)
    let gates = (0..<decoder.configuration.layers).map { "model.layers.\($0).mlp.moe_gate" }
    let always = Set(gates.flatMap { [$0 + ".output", $0 + ".choice"] })
    let recorder = Recorder(on: backend) { always.contains($0) || request.activations?($0) ?? false }
    let run = Run(backend, hooks: [recorder])

    // The first pass is the one whose values are written.
    let output = decoder.forward(packed, run, caches: request.caches())
    if let error = run.firstError { throw error }
    trace.append(recorder, .forward, decoder, batch, request)
    if let experts = decoder.adapter?.mixture?.experts {
      let layers = gates.map { batch.unpacked(recorder.value($0 + ".output"), width: experts) }
      trace.append("router_logits", [gates.count * batch.rows * batch.columns, experts], Array(layers.joined()))
    }
    let v = decoder.configuration.vocabulary
    let logits = try backend.download(decoder.logits(output.hidden, run))
    trace.append("logits", [batch.rows, batch.columns, v], batch.unpacked(logits, width: v))
    guard batch.hasLabels else {
      try run.finish()
      return trace
    }
    let auxiliary = output.balanceLoss ?? backend.zeros(Shape(1))
    guard request.needsGradients else {
      trace.append("loss", [1], try backend.download(decoder.lossAlone(output.hidden, packed, run)))
      trace.append("aux_loss", [1], try backend.download(auxiliary))
      try run.finish()
      return trace
    }
    let (loss, dhidden) = decoder.loss(output.hidden, packed, run)
    trace.append("loss", [1], try backend.download(loss))
    trace.append("aux_loss", [1], try backend.download(auxiliary))
    decoder.backward(dhidden, output, packed, run)
    try run.finish()
    if request.backward {
      trace.append(recorder, .backward, decoder, batch, request)
      try trace.append(decoder, "grad.", on: backend) { $0.gradient }
    }
    guard request.steps > 0 else { return trace }

    var curve = [try sum(loss, auxiliary, on: backend)]
    for step in 1..<request.steps {
      update(step)
      curve.append(try lossAndGradients(decoder, packed, request, on: backend))
    }
    update(request.steps)
    trace.append("loss_curve", [curve.count], curve)
    try trace.append(decoder, "after.", on: backend) { $0.value }
    return trace
  }

  /// A pass that only the optimiser and the loss curve see.
  private static func lossAndGradients<B: Backend>(
    _ decoder: Decoder<B>, _ batch: PackedBatch<B>, _ request: TraceRequest, on backend: B
  ) throws -> Scalar
  where B.Scalar == Scalar {
    let run = Run(backend)
    let output = decoder.forward(batch, run, caches: request.caches())
    let auxiliary = output.balanceLoss ?? backend.zeros(Shape(1))
    let (loss, dhidden) = decoder.loss(output.hidden, batch, run)
    decoder.backward(dhidden, output, batch, run)
    try run.finish()
    return try sum(loss, auxiliary, on: backend)
  }

  private static func sum<B: Backend>(_ loss: Tensor<B>, _ auxiliary: Tensor<B>, on backend: B) throws -> Scalar where B.Scalar == Scalar {
    try backend.download(loss)[0] + backend.download(auxiliary)[0]
  }

  private mutating func append<B: Backend>(
    _ decoder: Decoder<B>, _ prefix: String, on backend: B, _ whole: (Parameter<B>) -> Tensor<B>
  ) throws where B.Scalar == Scalar {
    for tensor in decoder.trainedTensors {
      let part = tensor.view(of: whole(tensor.parameter))
      append(prefix + tensor.name, part.shape.sizes, try backend.download(part))
    }
  }
}

extension TraceRequest {
  /// What the forward pass keeps, in terms of the model.
  func caches<B: Backend>(_: B.Type = B.self) -> Decoder<B>.CachePolicy { !needsGradients ? .none : recomputes ? .blockInputs : .all }
}
