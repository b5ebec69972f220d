import CPUBackend
import Checkpoints
import Conformance
import Decoders
import Foundation
import Tensors
import TestModels
import Testing
import Traces

@testable import Training

/// Moments in 8 bits against bitsandbytes' own AdamW8bit: `Fixtures/bitsandbytes/make.py`.
@Suite struct AdamW8bitTests {
  let file: Safetensors
  let quantized: Safetensors

  init() throws {
    file = try Safetensors(path: Fixture.path("bitsandbytes/adamw8bit.safetensors"))
    quantized = try Safetensors(path: Fixture.path("bitsandbytes/quantize.safetensors"))
  }

  private func bytes(_ name: String) throws -> [UInt8] {
    try (file.entry(name) == nil ? quantized : file).withBytes(of: name) { Array($0) }
  }

  private func floats(_ name: String) throws -> [Float] {
    try bytes(name).withUnsafeBytes { bytes in
      (0..<bytes.count / 4).map { Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self))) }
    }
  }

  @Test func theMapsAreItsMaps() throws {
    #expect(try DynamicMap.values(isSigned: true) == floats("map.signed"))
    #expect(try DynamicMap.values(isSigned: false) == floats("map.unsigned"))
  }

  @Test(arguments: [true, false]) func aNumberHasItsCode(isSigned: Bool) throws {
    let backend = CPUFloat(threads: 2, isPoisoned: true)
    let (name, x) = (isSigned ? "signed" : "unsigned", try floats("x").map { isSigned ? $0 : abs($0) })
    var kept = ByteBlocks<CPUFloat>(Shape(x.count), backend.upload(try floats("map.\(name)"), Shape(256)), isSigned: isSigned, on: backend)
    backend.encode(backend.upload(x, kept.shape), into: &kept, factor: nil)
    let (codes, scales) = (try backend.download(kept.codes), try backend.download(kept.scales))
    #expect(try codes.withUnsafeBytes { Array($0.prefix(x.count)) } == bytes("\(name).codes"))
    #expect(try scales == floats("\(name).scale"))
  }

  /// Each step begins at bitsandbytes' state before it. On a processor it looks codes up in a table of 65 536 numbers from -1 to 1, so its
  /// code is that of the number of these which is nearest; ours is that of the number itself, as in its definition and on a GPU.
  @Test(arguments: 1...5) func aStepIsItsStep(_ step: Int) throws {
    let backend = CPUFloat(threads: 2, isPoisoned: true)
    let names = ["whole", "rest", "small"]
    let parameters = try names.map { name in
      let shape = try #require(file.entry("start.\(name)")).shape
      let before = file.entry("\(step - 1).after.\(name)") == nil ? "start.\(name)" : "\(step - 1).after.\(name)"
      return Parameter<CPUFloat>(name, backend.upload(try floats(before), Shape(shape[0], shape[1])), on: backend)
    }
    var optimizer = AdamW8bit(parameters, learningRate: 0.01, weightDecay: 0.1, on: backend)
    if step > 1 { try optimizer.restore { try state($0, $1, $2, after: step - 1, on: backend) } }
    let before = Dictionary(uniqueKeysWithValues: optimizer.moments.map { ($0.name, $0.value) })
    for parameter in parameters {
      let factor: Float = [1, -0.5, 2, 0.25, 1][step - 1]
      parameter.gradient = backend.upload(try floats("gradient.\(parameter.name)").map { factor * $0 }, parameter.shape)
    }
    let gradients = Dictionary(uniqueKeysWithValues: parameters.map { ($0.name, backend.copy($0.gradient)) })
    let starts = Dictionary(uniqueKeysWithValues: try parameters.map { ($0.name, try backend.download($0.value)) })
    optimizer.step(step)
    let after = Dictionary(uniqueKeysWithValues: optimizer.moments.map { ($0.name, $0.value) })
    for parameter in parameters {
      // The moments between reading and keeping them.
      func moment(_ name: String, isSigned: Bool) throws -> Tensor<CPUFloat> {
        if let whole = before[name] { return backend.copy(whole) }
        let map = backend.upload(try floats(isSigned ? "map.signed" : "map.unsigned"), Shape(256))
        let (codes, scales) = (try #require(before[name + ".codes"]), try #require(before[name + ".scales"]))
        return backend.decoded(ByteBlocks(parameter.shape, codes: codes, scales: scales, map: map, isSigned: isSigned))
      }
      var x = backend.zeros(parameter.shape)
      var (m, v) = (try moment("m.\(parameter.name)", isSigned: true), try moment("v.\(parameter.name)", isSigned: false))
      let (oldM, gradient) = (try backend.download(m), try #require(gradients[parameter.name]))
      let settings = AdamWSettings(learningRate: 0.01, weightDecay: 0.1, step: step)
      backend.adamW(&x, gradient: gradient, factor: nil, &m, &v, settings, range: nil)
      let bounds = Bounds(settings, oldM, try backend.download(gradient), try backend.download(v))
      if step < 3 {
        let (name, start) = ("\(step).after.\(parameter.name)", try #require(starts[parameter.name]))
        expect(try backend.download(parameter.value), try floats(name), within: bounds.x(start), name)
      }
      for (name, value, bounds, isSigned) in [("m.\(parameter.name)", m, bounds.m, true), ("v.\(parameter.name)", v, bounds.v, false)] {
        let values = try backend.download(value)
        if let whole = after[name] {
          #expect(try backend.download(whole) == values)
          expect(values, try floats("\(step).\(name)"), within: bounds, "\(step).\(name)")
          continue
        }
        let (map, theirs) = (try floats(isSigned ? "map.signed" : "map.unsigned"), try bytes("\(step).\(name)"))
        let scales = try backend.download(try #require(after[name + ".scales"]))
        let ours = try backend.download(try #require(after[name + ".codes"])).withUnsafeBytes { Array($0.prefix(theirs.count)) }
        // Two maxima are no further apart than their numbers are.
        let largest = scales.indices.map { block in bounds[block * 256..<min(block * 256 + 256, bounds.count)].max() ?? .nan }
        expect(scales, try floats("\(step).\(name).scale"), within: largest, "\(step).\(name).scale")
        let numbers = values.indices.map { scales[$0 / 256] == 0 ? -1 : values[$0] / scales[$0 / 256] }
        let middles = zip(map, map.dropFirst()).map { ($0 + $1) / 2 }
        let (nearest, looked) = (numbers.map { code($0, middles) }, numbers.map { code(entry($0), middles) })
        #expect(ours == nearest, "\(step).\(name): \(zip(ours, nearest).count { $0 != $1 }) of \(ours.count) codes")
        #expect(theirs == looked, "\(step).\(name): \(zip(theirs, looked).count { $0 != $1 }) of \(ours.count) codes")
        #expect(zip(ours, theirs).count { $0 == $1 } > ours.count / 4, "the table has hardly a word in it")
      }
    }
  }

  /// The number of bitsandbytes' table that is nearest to x.
  private func entry(_ x: Float) -> Float { Float((Double((x + 1) * 32767.5) + 0.5).rounded(.down) / 32767.5 - 1) }

  /// The place of the nearest value, the lower one of two, by what lies halfway between neighbours.
  private func code(_ x: Float, _ middles: [Float]) -> UInt8 { UInt8(middles.firstIndex { x <= $0 } ?? 255) }

  /// A moment of the fixture as ``AdamW8bit`` keeps it.
  private func state(_ name: String, _ shape: Shape, _ isBytes: Bool, after step: Int, on backend: CPUFloat) throws -> Tensor<CPUFloat> {
    if isBytes { return try CheckpointWeights(file, on: backend).bytes("\(step).\(name.dropLast(".codes".count))", shape) }
    let values = try floats("\(step).\(name.hasSuffix(".scales") ? String(name.dropLast()) : name)")
    return backend.upload(values, shape)
  }

  private func expect(_ found: [Float], _ expected: [Float], within bounds: [Double], _ name: String) {
    #expect(found.count == expected.count && found.count == bounds.count && !found.isEmpty, "\(name)")
    let far = zip(zip(found, expected), bounds).enumerated().first { !(abs(Double($1.0.0) - Double($1.0.1)) <= $1.1) }
    #expect(far == nil, "\(name): \(String(describing: far))")
  }

  /// How far two programs' steps in float32 may be apart that begin at the same numbers: the roundings u of both, counted.
  ///
  ///     s = β₁|m| + (1 − β₁)|g|      U = lr/(1 − β₁ᵗ) · s / (√v / √(1 − β₂ᵗ) + ε)
  ///
  /// m: ours is m + (g − m)(1 − β₁), 3 u of the second term; theirs β₁ m + (1 − β₁) g, 2 u of each; and one of each sum. v: both
  /// β₂ v + (1 − β₂) g g, 3 u of a term and one of the sum: 8 v. x: 3 u of |x| each; the update has those of m (4 s and 3 s), half those
  /// of v and the root's (3 each), of the corrections, ε, lr and the quotient (7 each), and of the last sum: 29 U.
  private struct Bounds {
    let m, v, sizes: [Double]
    private static let rounding = Tolerance(Precision.float32)

    init(_ settings: AdamWSettings, _ oldM: [Float], _ gradient: [Float], _ newV: [Float]) {
      let (beta1, beta2) = (settings.beta1, settings.beta2)
      let terms = zip(oldM, gradient).map { beta1 * Double(abs($0)) + (1 - beta1) * Double(abs($1)) }
      m = zip(zip(oldM, gradient), terms).map { old, term in
        let (m, g) = (Double(old.0), Double(old.1))
        return Self.rounding.bound(2, of: abs(beta1 * m + (1 - beta1) * g)) + Self.rounding.bound(3, of: (1 - beta1) * abs(g - m))
          + Self.rounding.bound(2, of: term)
      }
      v = newV.map { Self.rounding.bound(8, of: Double($0)) }
      let (correction1, correction2) = (1 - pow(beta1, Double(settings.step)), 1 - pow(beta2, Double(settings.step)))
      sizes = zip(terms, newV).map { term, v in
        settings.learningRate / correction1 * term / ((Double(v) / correction2).squareRoot() + settings.epsilon)
      }
    }

    func x(_ start: [Float]) -> [Double] {
      zip(start, sizes).map { Self.rounding.bound(6, of: Double(abs($0))) + Self.rounding.bound(29, of: $1) }
    }
  }

  @Test(arguments: [("m.x.codes", ElementType.float32, [70, 64]), ("v.x.codes", .uint8, [64, 70]), ("m.x.scales", .uint8, [18])])
  func aMomentOfAnotherTypeOrShapeIsRefused(_ name: String, _ type: ElementType, _ shape: [Int]) throws {
    let place = try TrainingCase()
    let backend = CPUFloat(threads: 1)
    var optimizer = AdamW8bit([Parameter("x", backend.zeros(Shape(70, 64)), on: backend)], learningRate: 0.1, on: backend)
    let entries = try optimizer.moments.map { moment in
      moment.name == name
        ? try TensorEntry(name: name, elementType: type, shape: shape)
        : try TensorEntry(
          name: moment.name, elementType: moment.bytes == nil ? .float32 : .uint8, shape: (moment.bytes ?? moment.value.shape).sizes)
    }
    let path = place.folder + "/moments.safetensors"
    try SafetensorsWriter.write(to: path, entries: entries) { entry, emit in
      try [UInt8](repeating: 0, count: entry.byteCount).withUnsafeBytes { try emit($0) }
    }
    let file = CheckpointWeights(try Safetensors(path: path), on: backend)
    let error = try #require(
      #expect(throws: CheckpointError.self) {
        try optimizer.restore { try $2 ? file.bytes($0, $1) : file.tensor($0, $1, .constant(0)) }
      })
    #expect(error.place == .tensor(name) && error.found.contains("\(type)"), "\(error)")
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

  /// Moments that a step forms in whole precision find their room in the pool.
  @Test(arguments: [TrainingRecipe.OptimizerName.adamw, .adamw8bit])
  func theFirstStepBehindTheWarmUpAllocatesNothing(_ optimizer: TrainingRecipe.OptimizerName) throws {
    let place = try TrainingCase()
    var recipe = place.recipe
    (recipe.optimizer, recipe.rank, recipe.experts) = (optimizer, 256, 8)  // more than its activations
    let backend = CPUFloat(threads: 1)
    let run = try TrainingRun(recipe, on: backend)
    try run.prepare()
    let training = TrainingStep(run.decoder, keys: [RandomKey(seed: recipe.ownSeed)], clips: [recipe.clip], on: backend)
    try training.warmUp(run.longestMicroBatches(on: backend), microBatches: run.mostMicroBatches)
    run.isWarm = true
    #expect(run.decoder.parameters.contains { $0.shape.count >= AdamW8bit<CPUFloat>.leastCount })
    let before = backend.counters
    try run.run(shouldStop: { true })
    let spent = backend.counters - before
    #expect(run.step == 1 && spent.poolMisses == 0 && spent.sharedCopies == 0 && spent.waits == 1, "\(spent)")
  }

  /// A run goes on to the same bits, and its moments take less memory.
  @Test func aRunGoesOnToTheSameBits() throws {
    let place = try TrainingCase()
    var recipe = place.recipe
    (recipe.optimizer, recipe.rank, recipe.loraPlus) = (.adamw8bit, 64, 4)
    let whole = try place.run(recipe, out: place.folder + "/whole")
    try place.run(recipe, out: place.out, stopAfter: 4)
    try place.run(recipe, out: place.out, resumes: true)
    for file in ["/adapter_model.safetensors", "/checkpoint-9/optimizer.safetensors"] {
      #expect(try place.bytes(place.out + file) == place.bytes(place.folder + "/whole" + file), "\(file)")
    }
    // In the file of a checkpoint codes are what they are, in the parameter's shape.
    let moments = try Safetensors(path: place.out + "/checkpoint-9/optimizer.safetensors")
    let large = whole.decoder.parameters.filter { $0.shape.count >= AdamW8bit<CPUFloat>.leastCount }
    #expect(!large.isEmpty)
    for parameter in large {
      for moment in ["m", "v"] {
        let codes = try #require(moments.entry("\(moment).\(parameter.name).codes"))
        #expect(codes.elementType == .uint8 && codes.shape == parameter.shape.sizes)
      }
    }
    let held = 0
    let few = try whole.memoryPlan(held: HeldMemory(bytes: held)).added
    recipe.optimizer = .adamw
    let plain = try place.run(recipe)
    let many = try plain.memoryPlan(held: HeldMemory(bytes: held)).added
    #expect(few < many)
    #expect(plain.metrics.last?.loss != whole.metrics.last?.loss)
    #expect(abs((plain.metrics.last?.loss ?? 0) - (whole.metrics.last?.loss ?? 1)) < 0.2)
  }
}
