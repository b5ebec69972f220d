import CPUBackend
import Checkpoints
import Tensors
import TestModels
import Testing
import Traces
import Training

/// Five steps of every run of `Fixtures/peers/optimizers.json`, as torch made them: AdamW, SGD, momentum, LoRA+, clipping.
@Suite struct OptimizerTests {
  static let runs = ((try? JSON(contentsOf: Fixture.path("peers/optimizers.json")))?["runs"]?.objectValue?.keys).map(Array.init) ?? []

  @Test func theIndexNamesNineRuns() { #expect(Self.runs.count == 9) }

  @Test(arguments: runs) func float64EqualsTorch(_ run: String) throws {
    try expectTorchs(run, "float64", on: CPUDouble(threads: 1, isPoisoned: true), limit: 1e-12)
  }

  /// Four times the worst that was measured, 1.1e-7.
  @Test(arguments: runs) func float32EqualsTorch(_ run: String) throws {
    try expectTorchs(run, "float32", on: CPUFloat(threads: 1, isPoisoned: true), limit: 4.4e-7)
  }

  private func expectTorchs<B: Backend>(_ run: String, _ precision: String, on backend: B, limit: Double) throws {
    let index = try JSON(contentsOf: Fixture.path("peers/optimizers.json"))
    let settings = try #require(index["runs"]?[run])
    let names = try #require(index["parameters"]?.arrayValue).compactMap(\.stringValue)
    let steps = try #require(index["steps"]?.intValue)
    let tensors = try Fixture.tensors(Fixture.path("peers/optimizers.safetensors"))
    func tensor(_ name: String) throws -> Trace<Double>.NamedTensor { try #require(tensors.first { $0.name == name }, "\(name)") }

    let parameters = try names.map { name in
      let start = try tensor("start.\(name)")
      return Parameter(
        name, backend.upload(start.values.map { B.Scalar($0) }, Shape(start.shape[0], start.shape[1])),
        role: name.contains("lora_B") ? .b : .a, on: backend)
    }
    #expect(parameters.count == 4)
    var optimizer = try optimizer(settings, parameters, on: backend)
    for step in 0..<steps {
      var squared = backend.zeros(Shape(1))
      for parameter in parameters {
        let all = try tensor("gradient.\(parameter.name)").values
        let count = parameter.value.shape.count
        parameter.gradient = backend.upload(all[step * count..<(step + 1) * count].map { B.Scalar($0) }, parameter.value.shape)
        backend.add(1, backend.dot(parameter.gradient, parameter.gradient), into: &squared)
      }
      let (factor, norm) = backend.clipFactor(squared, loss: backend.zeros(Shape(1)), maximum: settings["max_norm"]?.doubleValue ?? 0)
      optimizer.step(step + 1, factor: factor)
      let expectedNorm = try tensor("\(run).\(precision).norm").values[step]
      #expect(try abs(Double(backend.download(norm)[0]) - expectedNorm) <= limit * expectedNorm, "step \(step)")
      for parameter in parameters {
        let shape = parameter.value.shape
        let all = try tensor("\(run).\(precision).\(parameter.name)")
        #expect(all.shape == [steps] + shape.sizes, "\(parameter.name): \(all.shape)")
        let expected = Array(all.values[step * shape.count..<(step + 1) * shape.count])
        let error = try largestError(of: backend.download(parameter.value), shape.sizes, from: expected, Array(all.shape.dropFirst()))
        #expect(error <= limit, "step \(step), \(parameter.name): \(error)")
        #expect(try backend.download(parameter.gradient) == Array(repeating: 0, count: shape.count))
      }
    }
  }

  private func optimizer<B: Backend>(_ settings: JSON, _ parameters: [Parameter<B>], on backend: B) throws -> any Optimizer<B> {
    let rate = try #require(settings["lr"]?.doubleValue)
    let decay = try #require(settings["weight_decay"]?.doubleValue)
    let ratio = settings["lora_plus"]?.doubleValue ?? 1
    if settings["optimizer"]?.stringValue == "adamw" {
      return AdamW(parameters, learningRate: rate, weightDecay: decay, loraPlusRatio: ratio, on: backend)
    }
    let momentum = try #require(settings["momentum"]?.doubleValue)
    return SGD(parameters, learningRate: rate, weightDecay: decay, momentum: momentum, loraPlusRatio: ratio, on: backend)
  }

  /// A factor that is not finite leaves values and moments as they are: the next step is the one that would have come.
  @Test(arguments: [Double.nan, .infinity]) func aFactorThatIsNotFiniteChangesNoValueAndNoMoment(_ bad: Double) throws {
    let backend = CPUDouble(threads: 1)
    let start = [0.5, -0.25, 2]
    let gradient = [0.1, -3, 0.02]
    func parameter() -> Parameter<CPUDouble> { Parameter("p", backend.upload(start, Shape(3)), on: backend) }
    func step(_ optimizer: inout some Optimizer<CPUDouble>, _ number: Int, _ parameter: Parameter<CPUDouble>, factor: Double) throws
      -> [Double]
    {
      parameter.gradient = backend.upload(gradient, Shape(3))
      optimizer.step(number, factor: backend.upload([factor], Shape(1)))
      #expect(try backend.download(parameter.gradient) == [0, 0, 0])
      return try backend.download(parameter.value)
    }
    let (p, q) = (parameter(), parameter())
    var sgd = SGD([p], learningRate: 0.1, weightDecay: 0.01, momentum: 0.9, on: backend)
    var other = SGD([q], learningRate: 0.1, weightDecay: 0.01, momentum: 0.9, on: backend)
    let first = try step(&sgd, 1, p, factor: 1)
    #expect(try step(&sgd, 2, p, factor: bad) == first)
    _ = try step(&other, 1, q, factor: 1)
    #expect(try step(&sgd, 2, p, factor: 1) == step(&other, 2, q, factor: 1))

    let r = parameter()
    var adamW = AdamW([r], learningRate: 0.1, weightDecay: 0.01, on: backend)
    let afterOne = try step(&adamW, 1, r, factor: 1)
    #expect(try step(&adamW, 2, r, factor: bad) == afterOne)
    var (x, m, v) = (backend.upload(start, Shape(3)), backend.zeros(Shape(3)), backend.zeros(Shape(3)))
    for number in [1, 2] {
      backend.adamW(
        &x, gradient: backend.upload(gradient, Shape(3)), factor: nil, &m, &v,
        AdamWSettings(learningRate: 0.1, weightDecay: 0.01, step: number), range: nil)
    }
    #expect(try step(&adamW, 2, r, factor: 1) == backend.download(x))
  }
}
