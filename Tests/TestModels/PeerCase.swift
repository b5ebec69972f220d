import Checkpoints
import Decoders
import Layers
import Tensors
import Traces

/// A case of `Fixtures/peers`, as its index `cases.json` lists it.
package struct PeerCase: Sendable, CustomStringConvertible {
  package let name: String
  /// Folder of the model.
  package let model: String
  /// Folder of the adapter; nil where the base is trained.
  package let adapter: String?
  package let batchFile: String
  /// What must come out in float64.
  package let float64: String
  /// What another program gave in float32.
  package let float32: String?
  /// The balance loss by the paper's form, and its gradients.
  package let perLayerArgmax: String?
  /// Gradients of the base tensors while the adapter is there.
  package let baseGradients: String?

  package var description: String { name }
  /// All files of the case that the index names, by what they are called in its folder.
  package var expectations: [String] {
    [float64, float32, perLayerArgmax, baseGradients].compactMap { $0.map { String($0.split(separator: "/").last ?? "") } }
  }

  /// The index; an error if it cannot be read or names nothing.
  package static func readIndex() throws -> [PeerCase] {
    let file = Fixture.path("peers/cases.json")
    return try (JSON(contentsOf: file).arrayValue ?? []).map { json in
      func optional(_ key: String) -> String? { json[key]?.stringValue.map { Fixture.path("peers/" + $0) } }
      func required(_ key: String) throws -> String {
        guard let path = optional(key) else { throw CheckpointError(file: file, place: .key(key), found: "nothing", expected: "a path") }
        return path
      }
      return PeerCase(
        name: json["name"]?.stringValue ?? "", model: try required("model"), adapter: optional("adapter"),
        batchFile: try required("batch"), float64: try required("float64"), float32: optional("float32"),
        perLayerArgmax: optional("perLayerArgmax"), baseGradients: optional("base_gradients"))
    }
  }

  /// The index, empty if it cannot be read (a test of its own reads it again and says why).
  package static let all = (try? readIndex()) ?? []
  /// Those with a router.
  package static let mixtures = all.filter { $0.mixture != nil }

  package var mixture: AdapterConfiguration.Mixture? {
    adapter.flatMap { try? AdapterConfiguration(contentsOf: $0 + "/adapter_config.json").mixture }
  }

  package func batch() throws -> TraceBatch {
    try TraceBatch(contentsOf: batchFile, vocabulary: DecoderConfiguration(contentsOf: model + "/config.json").vocabulary)
  }

  package func decoder<B: Backend>(
    evaluation: ExpertEvaluation = .sharedBase, balanceLoss: BalanceLossForm = .pooledTopK, trainsBase: Bool? = nil, on backend: B
  ) throws -> Decoder<B> {
    try ModelFolder.load(
      model, adapter: adapter.map { .folder($0) } ?? .none, trainsBase: trainsBase ?? (adapter == nil), evaluation: evaluation,
      balanceLoss: balanceLoss, on: backend)
  }

  /// Forward and backward.
  package func firstPass<B: Backend>(_ decoder: Decoder<B>, on backend: B) throws -> [Trace<B.Scalar>.NamedTensor] {
    var request = TraceRequest()
    request.backward = true
    return try Trace.record(decoder, batch(), request, on: backend) { _ in }.tensors
  }
}
