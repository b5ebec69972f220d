import Checkpoints
import Decoders
import Layers
import Tensors
import Traces
import Training

/// The fixtures of the repository.
package enum Fixture {
  /// A path below `Fixtures`.
  package static func path(_ name: String, file: String = #filePath) -> String {
    file.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/") + "/Fixtures/" + name
  }

  /// All tensors of a safetensors file, each float32 or float64 number as it is.
  package static func tensors(_ path: String) throws -> [Trace<Double>.NamedTensor] {
    try Trace<Double>(contentsOf: path).tensors
  }
}

/// The golden cases of the repository.
package enum Golden {
  package static let cases = ["topk", "ffn-only", "left-padding"]

  package static func folder(_ name: String) -> String { Fixture.path("golden/" + name) }

  package static func batch(_ name: String) throws -> TraceBatch {
    let configuration = try DecoderConfiguration(contentsOf: folder(name) + "/model/config.json")
    return try TraceBatch(contentsOf: folder(name) + "/batch.safetensors", vocabulary: configuration.vocabulary)
  }

  package static func decoder<B: Backend>(
    _ name: String, evaluation: ExpertEvaluation = .sharedBase, withAdapter: Bool = true, on backend: B
  ) throws -> Decoder<B> {
    try ModelFolder.load(
      folder(name) + "/model", adapter: withAdapter ? .folder(folder(name) + "/adapter") : .none, trainsBase: !withAdapter,
      evaluation: evaluation, on: backend)
  }

  /// The whole trace: forward, gradients and three steps with the learning rate of the golden files.
  package static func trace<B: Backend>(_ name: String, evaluation: ExpertEvaluation = .sharedBase, on backend: B) throws -> Trace<B.Scalar>
  {
    try Trace.withThreeSteps(decoder(name, evaluation: evaluation, on: backend), batch(name), on: backend)
  }

  /// PyTorch's float64 results.
  package static func expected(_ name: String) throws -> [Trace<Double>.NamedTensor] {
    try Fixture.tensors(folder(name) + "/expected64.safetensors")
  }
}

extension Trace {
  /// Forward, gradients, and as many AdamW steps as the fixtures have, with their learning rate and decay.
  package static func withThreeSteps<B: Backend>(_ decoder: Decoder<B>, _ batch: TraceBatch, on backend: B) throws -> Trace
  where B.Scalar == Scalar {
    var optimizer = AdamW(decoder.parameters, learningRate: 0.01, weightDecay: 0.01, on: backend)
    var request = TraceRequest()
    request.backward = true
    request.steps = 3
    return try record(decoder, batch, request, on: backend) { optimizer.step($0) }
  }
}

extension Array {
  /// The tensors whose names begin with one of the prefixes.
  package func only<S>(_ prefixes: String...) -> [Trace<S>.NamedTensor] where Element == Trace<S>.NamedTensor {
    filter { tensor in prefixes.contains { tensor.name.hasPrefix($0) } }
  }

  /// What the first pass gave: all but the optimizer's steps.
  package func firstPass<S>() -> [Trace<S>.NamedTensor] where Element == Trace<S>.NamedTensor {
    only("logits", "loss", "aux_loss", "router_logits", "grad.").filter { $0.name != "loss_curve" }
  }

  /// What the optimizer's steps left.
  package func steps<S>() -> [Trace<S>.NamedTensor] where Element == Trace<S>.NamedTensor { only("after.", "loss_curve") }
}
