import CPUBackend
import Conformance
import Decoders
import Layers
import Tensors
import TestModels
import Testing
import Traces

/// One layer, taken out of a model and run forward and backward by itself, as a lesson or a tool does it.
@Suite struct LayerAloneTests {
  let backend = CPUDouble(threads: 1, isPoisoned: true)
  let batch: PackedBatch<CPUDouble>
  let block: SequentialBlock<CPUDouble>

  init() throws {
    let decoder = try SmallModel.decoder(SmallModel.adapter(), on: backend)
    batch = PackedBatch(SmallModel.sequences, on: backend)
    block = try #require(decoder.blocks[1] as? SequentialBlock<CPUDouble>)
  }

  private func random(_ shape: Shape, _ name: String) -> Tensor<CPUDouble> {
    backend.random(shape, .normal(deviation: 1), RandomKey(seed: 3).derived(name, "test"))
  }

  /// |fd − ⟨dx, d⟩| along random directions of x, for Σ y ⊙ dy; the routing is held.
  private func expectGradient(
    _ x: Tensor<CPUDouble>, _ dx: Tensor<CPUDouble>, _ dy: Tensor<CPUDouble>, _ y: (Tensor<CPUDouble>) throws -> Tensor<CPUDouble>
  ) throws {
    for number in 0..<4 {
      let direction = random(x.shape, "direction \(number)")
      func value(_ h: Double) throws -> Double {
        var moved = backend.copy(x)
        backend.add(h, direction, into: &moved)
        return try backend.download(backend.dot(y(moved), dy))[0]
      }
      let h = 1e-4
      let difference = (8 * (try value(h) - value(-h)) - (try value(2 * h) - value(-2 * h))) / (12 * h)
      let product = try backend.download(backend.dot(dx, direction))[0]
      #expect(abs(difference - product) <= 1e-8 * max(1, abs(product)), "\(difference), \(product)")
    }
  }

  @Test func attentionHasTheGradientOfItsInput() throws {
    let (x, dy) = (random(Shape(batch.tokens, 12), "x"), random(Shape(batch.tokens, 12), "dy"))
    let layer = block.attention.layer
    let dx = layer.backward(dy, x, layer.forward(x, batch, Run(backend)).cache, batch, Run(backend))
    try expectGradient(x, dx, dy) { layer.forward($0, batch, Run(backend)).y }
  }

  @Test func aFeedForwardWithExpertsHasTheGradientOfItsInput() throws {
    let (x, dy) = (random(Shape(batch.tokens, 12), "x"), random(Shape(batch.tokens, 12), "dy"))
    let layer = block.feedForward.layer
    let recorder = Recorder(on: backend) { $0.hasSuffix("choice") }
    let run = Run(backend, hooks: [recorder])
    let dx = layer.backward(dy, x, layer.forward(x, batch, run).cache, batch, run)
    let held = Replacement<CPUDouble>(choices: recorder.choices.mapValues { backend.upload($0) })
    try expectGradient(x, dx, dy) { layer.forward($0, batch, Run(backend, hooks: [held])).y }
  }

  @Test func aNormSeesGradientsAsGradients() throws {
    let (x, dy) = (random(Shape(batch.tokens, 12), "x"), random(Shape(batch.tokens, 12), "dy"))
    let recorder = Recorder(on: backend) { _ in true }
    let run = Run(backend, hooks: [recorder])
    let norm = block.attention.pre
    let (y, cache) = norm.forward(x, run)
    var dx: Tensor<CPUDouble>?
    norm.backward(dy, cache, into: &dx, run)
    #expect(
      recorder.visits.map(\.point.description) == ["model.layers.1.input_layernorm.output", "grad.model.layers.1.input_layernorm.output"])
    #expect(try recorder.visits.map(\.values) == [backend.download(y), backend.download(dy)])
    try expectGradient(x, #require(dx), dy) { norm.forward($0, Run(backend)).y }
  }
}
