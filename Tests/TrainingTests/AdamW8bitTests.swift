import CPUBackend
import Checkpoints
import Decoders
import Tensors
import TestModels
import Testing
import Traces
import Training

/// Moments in 8 bits against bitsandbytes' own AdamW8bit: `Fixtures/bitsandbytes/make.py`.
@Suite struct AdamW8bitTests {
  let file: Safetensors

  init() throws { file = try Safetensors(path: Fixture.path("bitsandbytes/adamw8bit.safetensors")) }

  private func bytes(_ name: String) throws -> [UInt8] { try file.withBytes(of: name) { Array($0) } }

  private func floats(_ name: String) throws -> [Float] {
    try file.withBytes(of: name) { bytes in
      (0..<bytes.count / 4).map { Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self))) }
    }
  }

  @Test func theMapsAreItsMaps() throws {
    #expect(try DynamicMap.values(isSigned: true) == floats("map.signed"))
    #expect(try DynamicMap.values(isSigned: false) == floats("map.unsigned"))
  }

  /// Where a number is within rounding of the middle between two values either code is right; the fixture has none that we see otherwise.
  @Test func fiveStepsAreItsSteps() throws {
    let backend = CPUFloat(threads: 2, isPoisoned: true)
    let names = ["whole", "rest", "small"]
    let parameters = try names.map { name in
      let shape = try #require(file.entry("start.\(name)")).shape
      return Parameter<CPUFloat>(name, backend.upload(try floats("start.\(name)"), Shape(shape[0], shape[1])), on: backend)
    }
    var optimizer = AdamW8bit(parameters, learningRate: 0.01, weightDecay: 0.1, on: backend)
    for (step, factor) in [1, -0.5, 2, 0.25, 1].enumerated().map({ ($0 + 1, Float($1)) }) {
      for parameter in parameters {
        parameter.gradient = backend.upload(try floats("gradient.\(parameter.name)").map { factor * $0 }, parameter.shape)
      }
      optimizer.step(step)
      var moments: [String: [Float]] = [:]
      for (name, value) in optimizer.moments { moments[name] = try backend.download(value) }
      for parameter in parameters {
        for moment in ["m.", "v."].map({ $0 + parameter.name }) {
          if parameter.name == "small" {
            #expect(largestError(try #require(moments[moment]), try floats("\(step).\(moment)")) < 1e-6, "\(step).\(moment)")
            continue
          }
          let expected = try bytes("\(step).\(moment)")
          let codes = try #require(moments[moment + ".codes"]).withUnsafeBytes { Array($0.prefix(expected.count)) }
          #expect(codes == expected, "\(step).\(moment): \(zip(codes, expected).count { $0 != $1 }) of \(expected.count) codes differ")
          #expect(
            largestError(try #require(moments[moment + ".scales"]), try floats("\(step).\(moment).scale")) < 1e-6, "\(step).\(moment)")
        }
        guard file.entry("\(step).after.\(parameter.name)") != nil else { continue }
        let error = largestError(try backend.download(parameter.value), try floats("\(step).after.\(parameter.name)"))
        #expect(error < 1e-6, "\(step).after.\(parameter.name): \(error)")
      }
    }
  }

  /// The largest difference in units of the largest magnitude; infinite where the numbers are not as many.
  private func largestError(_ found: [Float], _ expected: [Float]) -> Float {
    guard found.count == expected.count, let largest = expected.map(abs).max() else { return .infinity }
    let errors = zip(found, expected).map { abs($0 - $1) }
    return errors.contains { $0.isNaN } ? .infinity : (errors.max() ?? .infinity) / largest
  }

  /// A step that is not finite changes nothing, also of what is kept in few bits.
  @Test func aFactorThatIsNotFiniteChangesNothing() throws {
    let backend = CPUDouble(threads: 1)
    func random(_ name: String) -> Tensor<CPUDouble> {
      backend.random(Shape(70, 64), .normal(deviation: 1), RandomKey(seed: 3).derived(name, ""))
    }
    let parameter = Parameter<CPUDouble>("x", random("x"), on: backend)
    var optimizer = AdamW8bit([parameter], learningRate: 0.1, on: backend)
    func state() throws -> [[UInt64]] {
      try ([parameter.value] + optimizer.moments.map(\.value)).map { try backend.download($0).map(\.bitPattern) }
    }
    parameter.gradient = random("g")
    optimizer.step(1)
    let before = try state()
    parameter.gradient = random("h")
    optimizer.step(2, factor: backend.upload([.nan], Shape(1)))
    #expect(try state() == before)
    parameter.gradient = random("h")
    optimizer.step(2)
    #expect(try state() != before)
  }

  /// A run goes on to the same bits, and its moments take less memory.
  @Test func aRunGoesOnToTheSameBits() throws {
    let place = try TrainingCase()
    var recipe = place.recipe
    (recipe.optimizer, recipe.rank, recipe.loraPlus) = (.adamw8bit, 64, 4)
    let whole = try place.run(recipe, out: place.folder + "/whole")
    try place.run(recipe, out: place.out, stopAfter: 4)
    try place.run(recipe, out: place.out, resumes: true)
    for file in ["/adapter_model.safetensors", "/metrics.jsonl", "/checkpoint-9/optimizer.safetensors"] where !file.contains("metrics") {
      #expect(try place.bytes(place.out + file) == place.bytes(place.folder + "/whole" + file), "\(file)")
    }
    let held = 0
    let few = try whole.memoryPlan(held: held).added
    recipe.optimizer = .adamw
    let plain = try place.run(recipe)
    let many = try plain.memoryPlan(held: held).added
    #expect(few < many)
    #expect(plain.metrics.last?.loss != whole.metrics.last?.loss)
    #expect(abs((plain.metrics.last?.loss ?? 0) - (whole.metrics.last?.loss ?? 1)) < 0.2)
  }
}
