import CPUBackend
import Checkpoints
import Conformance
import Layers
import Tensors
import TestModels
import Testing
import Traces
import Training

@testable import Decoders

/// Where every tensor of a trace comes from: complete, and of nothing that comes later.
@Suite struct ProvenanceTests {
  /// A model by its files.
  struct Case: Sendable, CustomTestStringConvertible {
    let name: String
    let model: String
    let adapters: [String]
    let batch: String
    var trainsBase = false
    var testDescription: String { name }

    func decoder<B: Backend>(_ evaluation: ExpertEvaluation, on backend: B) throws -> Decoder<B> {
      try ModelFolder(model).decoder(
        adapters: adapters.map { .folder($0) }, trainsBase: trainsBase || adapters.isEmpty, evaluation: evaluation, on: backend)
    }

    func input() throws -> TraceBatch {
      try TraceBatch(contentsOf: batch, vocabulary: ModelFolder(model).configuration.vocabulary, adapters: adapters.count)
    }
  }

  static let peers = PeerCase.all.flatMap { peer -> [Case] in
    let one = Case(name: peer.name, model: peer.model, adapters: peer.adapter.map { [$0] } ?? [], batch: peer.batchFile)
    guard peer.baseGradients != nil else { return [one] }
    var both = one
    both.trainsBase = true
    return [one, both]
  }
  static let plural = ((try? JSON(contentsOf: Fixture.path("peers/plural.json")))?.arrayValue ?? []).map { json in
    func path(_ name: String?) -> String { Fixture.path("peers/" + (name ?? "")) }
    return Case(
      name: json["name"]?.stringValue ?? "plural", model: path(json["model"]?.stringValue),
      adapters: (json["adapters"]?.arrayValue ?? []).map { path($0.stringValue) }, batch: path(json["batch"]?.stringValue))
  }

  @Test func thereAreCases() { #expect(Self.peers.count > 55 && Self.plural.count == 2) }

  @Test(arguments: peers + plural, ExpertEvaluation.allCases)
  func everyTensorOfATraceComesFromWhatCameBefore(_ one: Case, _ evaluation: ExpertEvaluation) throws {
    let backend = CPUFloat(threads: 1)
    let decoder = try one.decoder(evaluation, on: backend)
    let batch = try one.input()
    let provenances = try Provenances(decoder, hasBaseRows: batch.adapters.contains(nil))
    var request = TraceRequest()
    (request.backward, request.steps, request.activations) = (true, 1, { _ in true })
    let zeros = decoder.parameters.reduce(into: [ObjectIdentifier: Tensor<CPUFloat>]()) {
      $0[ObjectIdentifier($1)] = backend.zeros($1.shape)
    }
    let trace = try Trace.record(
      decoder, batch, request, on: backend, moments: { (zeros[ObjectIdentifier($0)]!, zeros[ObjectIdentifier($0)]!) }, update: { _ in })
    var before: Set<String> = []
    for tensor in trace.tensors {
      let provenance = try #require(provenances[tensor.name], "\(tensor.name) comes from nowhere")
      #expect(provenance.name == tensor.name && !provenance.equation.isEmpty, "\(tensor.name)")
      #expect(!provenance.inputs.isEmpty || provenance.formula == .parts([]), "\(tensor.name)")
      for input in provenance.inputs {
        switch input.source {
        case .point(let name): #expect(before.contains(name), "\(tensor.name) reads \(name), which does not come before it")
        case .weight(let name):
          #expect(provenances.weights[name] != nil || provenances.trained[name] != nil, "\(tensor.name): \(name) is no weight")
        case .batch(let name): #expect(["input_ids", "labels", "attention_mask", "adapter"].contains(name), "\(tensor.name): \(name)")
        }
      }
      before.insert(tensor.name)
    }
    #expect(before.count > 100)
    let unknown = provenances.all.map(\.name).filter { !before.contains($0) }
    #expect(unknown.isEmpty, "listed and not in the trace: \(unknown.prefix(5))")
    #expect(Set(provenances.all.map(\.name)).count == provenances.all.count)
  }

  /// What is read by no equation has no way to the loss: only names of the same numbers and results stand at the end of the run.
  @Test func everyPointIsReadByAnother() throws {
    let shapes = ShapeBackend()
    for evaluation in ExpertEvaluation.allCases {
      let decoder = try Decoder(
        SmallModel.configuration, weights: InitialWeights(seed: 1, on: shapes),
        adapters: [AdapterSource(SmallModel.adapter(), InitialWeights(seed: 1, on: shapes))], evaluation: evaluation, on: shapes)
      let all = try Provenances(decoder).all
      let read = Set(all.flatMap { $0.inputs.map(\.name) })
      let unread = all.filter { !read.contains($0.name) }.map(\.name)
      let ends = ["router_logits", "loss_curve", "grad.model.embed_tokens.output"]
      #expect(unread.allSatisfy { ends.contains($0) || $0.hasPrefix("after.") }, "\(unread)")
    }
  }

  /// Torch's moments after three steps.
  @Test func theMomentsAreTorchs() throws {
    let backend = CPUDouble(threads: 1, isPoisoned: true)
    let decoder = try Golden.decoder("topk", on: backend)
    var optimizer = AdamW(decoder.parameters, learningRate: 0.01, weightDecay: 0.01, on: backend)
    var request = TraceRequest()
    (request.steps, request.activations) = (3, { $0.hasPrefix("exp_avg") })
    let trace = try Trace.record(
      decoder, Golden.batch("topk"), request, on: backend, moments: { optimizer.moments(of: $0) }, update: { optimizer.step($0) })
    let expected = try Fixture.tensors(Fixture.path("golden/moments64.safetensors"))
    let found = trace.tensors.only("exp_avg.", "exp_avg_sq.")
    let agreement = Agreement(of: found, with: expected)
    #expect(agreement.count == 132 && agreement.holds(to: 1e-9), "\(agreement)")
  }

  /// A block of a kind that nobody has formulas of.
  private struct OtherBlock<Inner: DecoderBlock>: DecoderBlock {
    typealias B = Inner.B
    let inner: Inner
    var path: String { inner.path }
    var linears: [Linear<B>] { inner.linears }
    func forward(
      _ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>, earlier: KeyValueCache<B>?
    ) -> (y: Tensor<B>, cache: Inner.Cache) { inner.forward(x, batch, run, earlier: earlier) }
    func backward(_ dy: consuming Tensor<B>, _ cache: consuming Inner.Cache, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
      inner.backward(dy, cache, batch, run)
    }
  }

  @Test func aBlockOfAnotherKindIsAnErrorThatNamesIt() throws {
    let decoder = try Golden.decoder("topk", on: ShapeBackend())
    let block = try #require(decoder.blocks[1] as? SequentialBlock<ShapeBackend>)
    let other = Decoder(
      configuration: decoder.configuration, adapters: decoder.adapters, base: decoder.base, embedding: decoder.embedding,
      blocks: [decoder.blocks[0], OtherBlock(inner: block)], norm: decoder.norm, head: decoder.head)
    let error = #expect(throws: UnknownBlock.self) { try Provenances(other) }
    #expect(error?.path == "model.layers.1" && error?.description.contains("OtherBlock") == true)
    #expect(throws: UnknownBlock.self) { try other.points() }
  }
}
