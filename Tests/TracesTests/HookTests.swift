import CPUBackend
import Conformance
import Decoders
import Layers
import Tensors
import TestModels
import Testing
import Traces

/// A replaced value is followed everywhere as if the layer had computed it: downstream, in caches, in what backward
/// forms again, and in gradients.
@Suite struct HookTests {
  let backend = CPUDouble(threads: 1, isPoisoned: true)

  @Test func aHookThatOnlyLooksChangesNoBit() throws {
    let decoder = try SmallModel.decoder(on: backend)
    let plain = try SmallModel.trainingTensors(decoder, on: backend)
    let recorder = Recorder(on: backend) { _ in true }
    let watched = try SmallModel.trainingTensors(decoder, hooks: [recorder], on: backend)
    #expect(watched.map(\.values) == plain.map(\.values))
    #expect(recorder.records.count > 100)
  }

  /// Replacing a value by what was computed anyway proves that the replaced path is the computed one, bit for bit.
  @Test(arguments: ["model.layers.1.mlp.output", "model.layers.0.self_attn.q_proj.output", "model.layers.1.mlp.experts.2.hidden"])
  func aValueReplacedByItselfChangesNoBit(_ path: String) throws {
    let decoder = try SmallModel.decoder(on: backend)
    let plain = try SmallModel.trainingTensors(decoder, on: backend)
    let recorder = Recorder(on: backend) { $0 == path }
    _ = try SmallModel.trainingTensors(decoder, hooks: [recorder], on: backend)
    let record = try #require(recorder.records[path])
    let same = Replacement<CPUDouble>(values: [path: backend.upload(record.values, record.shape)])
    #expect(try SmallModel.trainingTensors(decoder, hooks: [same], on: backend).map(\.values) == plain.map(\.values))
  }

  /// One expert's h in both evaluations: the evaluation that forms h again in backward must use the replaced one.
  @Test(arguments: ["hidden", "gate_proj.output", "up_proj.output"])
  func oneExpertsReplacedRowsGiveTheSameInBothEvaluations(_ name: String) throws {
    let path = "model.layers.1.mlp.experts.2.\(name)"
    func gradients(_ evaluation: ExpertEvaluation, replacing: Bool) throws -> [Trace<Double>.NamedTensor] {
      let decoder = try SmallModel.decoder(dropout: 0.2, evaluation: evaluation, on: backend)
      let recorder = Recorder(on: backend) { $0 == path }
      let plain = try SmallModel.trainingTensors(decoder, hooks: [recorder], on: backend)
      guard replacing else { return plain }
      let record = try #require(recorder.records[path])
      #expect(record.shape.rows > 0, "expert 2 has no rows; choose another")
      let other = backend.upload(record.values.map { 0.5 - $0 }, record.shape)
      return try SmallModel.trainingTensors(decoder, hooks: [Replacement<CPUDouble>(values: [path: other])], on: backend)
    }
    let shared = try gradients(.sharedBase, replacing: true)
    let agreement = Agreement(of: shared, with: try gradients(.perExpert, replacing: true))
    #expect(agreement.holds(to: 1e-12), "\(agreement)")
    #expect(!Agreement(of: shared, with: try gradients(.sharedBase, replacing: false)).holds(to: 1e-3), "the replacement changed nothing")
  }

  /// What plain LoRA's W2 and A2 both read has one gradient, whichever name it is asked for by, and is replaced for both.
  @Test func theInputOfADenseDownProjectionIsHidden() throws {
    let path = "model.layers.1.mlp."
    var settings = SmallModel.adapter(dropout: 0)
    settings.mixture = nil
    let decoder = try Decoder(
      SmallModel.configuration, weights: RandomWeights(seed: 7, on: backend),
      adapters: [AdapterSource(settings, RandomWeights(seed: 8, on: backend))], on: backend)
    let recorder = Recorder(on: backend) { $0.hasPrefix(path) }
    _ = try SmallModel.trainingTensors(decoder, hooks: [recorder], isTraining: false, on: backend)
    let gradient = try #require(recorder.records["grad.\(path)down_proj.input"])
    #expect(gradient.values == recorder.records["grad.\(path)hidden"]?.values && gradient.values.contains { $0 != 0 })
    func replaced(_ name: String) throws -> [Trace<Double>.NamedTensor] {
      let value = backend.random(gradient.shape, .normal(deviation: 1), RandomKey(seed: 3))
      return try SmallModel.trainingTensors(
        decoder, hooks: [Replacement<CPUDouble>(values: [path + name: value])], isTraining: false, on: backend)
    }
    let (input, hidden) = (try replaced("down_proj.input"), try replaced("hidden"))
    #expect(Agreement(of: input, with: hidden).holds(to: 0), "\(Agreement(of: input, with: hidden))")
  }

  /// The gradient that follows a replaced hidden activation is that of a model in which this activation is a constant:
  /// finite differences of the layers above agree, and the layer below gets what the replaced value passes on.
  @Test func aReplacedHiddenActivationIsFollowedByTheGradient() throws {
    let path = "model.layers.1.post_attention_layernorm.output"
    let decoder = try SmallModel.decoder(on: backend)
    let rows = SmallModel.sequences.reduce(0) { $0 + $1.ids.count }
    let value = backend.random(Shape(rows, 12), .normal(deviation: 1), RandomKey(seed: 3))
    let replacement = Replacement<CPUDouble>(values: [path: value])
    func run() throws -> [Trace<Double>.NamedTensor] {
      try SmallModel.trainingTensors(decoder, hooks: [replacement], isTraining: false, on: backend)
    }
    let tensors = try run()
    func loss(_ tensors: [Trace<Double>.NamedTensor]) -> Double { tensors.only("loss", "aux").reduce(0) { $0 + $1.values[0] } }
    // Every trained tensor of the replaced layer's own feed-forward and of the layers above, one element each.
    var checked = 0
    for trained in decoder.trainedTensors
    where trained.name.contains(".1.mlp.down_proj.experts.0") || trained.name.contains("layers.2.self_attn") {
      let gradient = try #require(tensors.first { $0.name == "grad." + trained.name }).values[0]
      let h = 1e-5
      func shifted(_ delta: Double) throws -> Double {
        let original = trained.parameter.value
        defer { trained.parameter.value = original }
        var values = try backend.download(original)
        let view = trained.view(of: original)
        values[view.offset - original.offset] += delta
        trained.parameter.value = backend.upload(values, original.shape)
        return loss(try run())
      }
      let difference = (try shifted(h) - shifted(-h)) / (2 * h)
      #expect(abs(difference - gradient) <= 1e-7 * max(1, abs(gradient)), "\(trained.name): \(difference), \(gradient)")
      checked += 1
    }
    #expect(checked >= 10)
  }

  /// A hook that patches once and then stops listening, as in a lesson, is followed by what backward forms again.
  @Test func aHookThatListensOnceIsFollowedLikeOneThatStays() throws {
    final class Once: Hook {
      typealias B = CPUDouble
      let path: String
      let value: Tensor<CPUDouble>
      var isDone = false
      init(_ path: String, _ value: Tensor<CPUDouble>) { (self.path, self.value) = (path, value) }
      func listens(to path: String) -> Bool { !isDone && path == self.path }
      func visit(_ value: inout Tensor<CPUDouble>, at point: HookPoint) { (value, isDone) = (self.value, true) }
    }
    let path = "model.layers.1.mlp.experts.2.hidden"
    let decoder = try SmallModel.decoder(on: backend)
    let recorder = Recorder(on: backend) { $0 == path }
    _ = try SmallModel.trainingTensors(decoder, hooks: [recorder], on: backend)
    let record = try #require(recorder.records[path])
    let other = backend.upload(record.values.map { 0.5 - $0 }, record.shape)
    let lasting = try SmallModel.trainingTensors(decoder, hooks: [Replacement<CPUDouble>(values: [path: other])], on: backend)
    let once = try SmallModel.trainingTensors(decoder, hooks: [Once(path, other)], on: backend)
    #expect(once.map(\.values) == lasting.map(\.values))
  }

  @Test func aReplacedRoutingDecisionIsFollowed() throws {
    let path = "model.layers.0.mlp.moe_gate.choice"
    let rows = SmallModel.sequences.reduce(0) { $0 + $1.ids.count }
    // Everybody to experts 3 and 1: experts 0, 2 and 4 of layer 0 get no gradient at all.
    let choice = backend.upload((0..<rows).flatMap { _ in [Int32(3), 1] })
    func gradients(_ evaluation: ExpertEvaluation) throws -> [Trace<Double>.NamedTensor] {
      let decoder = try SmallModel.decoder(evaluation: evaluation, on: backend)
      return try SmallModel.trainingTensors(decoder, hooks: [Replacement<CPUDouble>(choices: [path: choice])], on: backend)
    }
    let shared = try gradients(.sharedBase)
    let agreement = Agreement(of: shared, with: try gradients(.perExpert))
    #expect(agreement.holds(to: 1e-12), "\(agreement)")
    for tensor in shared where tensor.name.contains("layers.0.mlp") && tensor.name.contains("experts") {
      let isBusy = tensor.name.contains("experts.1.") || tensor.name.contains("experts.3.")
      #expect(tensor.values.contains { $0 != 0 } == isBusy, "\(tensor.name)")
    }
  }

  @Test func theFirstErrorOfAHookIsThrownWhenTheRunEnds() throws {
    final class Failing: Hook {
      typealias B = CPUDouble
      struct Failure: Error, Equatable { let path: String }
      func listens(to path: String) -> Bool { true }
      func visit(_ value: inout Tensor<CPUDouble>, at point: HookPoint) throws { throw Failure(path: point.path) }
    }
    let decoder = try SmallModel.decoder(on: backend)
    #expect(throws: Failing.Failure(path: "model.embed_tokens.output")) {
      _ = try SmallModel.trainingTensors(decoder, hooks: [Failing()], on: backend)
    }
  }
}
