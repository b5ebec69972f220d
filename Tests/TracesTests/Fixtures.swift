import CPUBackend
import Checkpoints
import Conformance
import Decoders
import MixLoRA
import Tensors
import Traces
import Training

/// The golden cases of the repository.
enum Golden {
  static let cases = ["topk", "ffn-only", "left-padding"]

  static func folder(_ name: String, file: String = #filePath) -> String {
    file.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/") + "/Fixtures/golden/" + name
  }

  static func batch(_ name: String) throws -> TraceBatch {
    let configuration = try DecoderConfiguration(contentsOf: folder(name) + "/model/config.json")
    return try TraceBatch(contentsOf: folder(name) + "/batch.safetensors", vocabulary: configuration.vocabulary)
  }

  static func decoder<B: Backend>(_ name: String, evaluation: ExpertEvaluation = .sharedBase, withAdapter: Bool = true, on backend: B)
    throws
    -> Decoder<B>
  {
    try ModelFiles.load(
      folder(name) + "/model", adapter: withAdapter ? folder(name) + "/adapter" : nil, trainsBase: !withAdapter, evaluation: evaluation,
      positions: batch(name).columns, on: backend)
  }

  /// The whole trace: forward, gradients and three steps with the learning rate of the golden files.
  static func trace<B: Backend>(_ name: String, evaluation: ExpertEvaluation = .sharedBase, on backend: B) throws -> Trace<B.Scalar> {
    let decoder = try decoder(name, evaluation: evaluation, on: backend)
    var optimizer = AdamW(decoder.parameters, learningRate: 0.01, weightDecay: 0.01, on: backend)
    var request = TraceRequest()
    request.backward = true
    request.steps = 3
    return try Trace.record(decoder, batch(name), request, on: backend) { optimizer.step() }
  }

  /// PyTorch's float64 results.
  static func expected(_ name: String) throws -> [Trace<Double>.NamedTensor] {
    let file = try Safetensors(path: folder(name) + "/expected64.safetensors")
    return try file.entries.map { entry in
      let values = try file.withBytes(of: entry.name) { bytes in
        (0..<entry.elementCount).map { bytes.loadUnaligned(fromByteOffset: 8 * $0, as: Double.self) }
      }
      return Trace<Double>.NamedTensor(name: entry.name, shape: entry.shape, values: values)
    }
  }
}

extension Array {
  func only<S>(_ prefixes: String...) -> [Trace<S>.NamedTensor] where Element == Trace<S>.NamedTensor {
    filter { tensor in prefixes.contains { tensor.name.hasPrefix($0) } }
  }
}
