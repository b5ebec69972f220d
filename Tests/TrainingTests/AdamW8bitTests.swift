import CPUBackend
import Checkpoints
import Decoders
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
    if step > 1 { try optimizer.restore { try state($0, $1, after: step - 1, on: backend) } }
    let before = Dictionary(uniqueKeysWithValues: optimizer.moments.map { ($0.name, $0.value) })
    for parameter in parameters {
      let factor: Float = [1, -0.5, 2, 0.25, 1][step - 1]
      parameter.gradient = backend.upload(try floats("gradient.\(parameter.name)").map { factor * $0 }, parameter.shape)
    }
    let gradients = Dictionary(uniqueKeysWithValues: parameters.map { ($0.name, backend.copy($0.gradient)) })
    optimizer.step(step)
    let after = Dictionary(uniqueKeysWithValues: optimizer.moments.map { ($0.name, $0.value) })
    for parameter in parameters {
      if step < 3 {
        let error = largestError(try backend.download(parameter.value), try floats("\(step).after.\(parameter.name)"))
        #expect(error < 1e-6, "\(step).after.\(parameter.name): \(error)")
      }
      // The moments between reading and keeping them.
      func moment(_ name: String, isSigned: Bool) throws -> Tensor<CPUFloat> {
        if let whole = before[name] { return backend.copy(whole) }
        var kept = ByteBlocks<CPUFloat>(
          parameter.shape, backend.upload(try floats(isSigned ? "map.signed" : "map.unsigned"), Shape(256)),
          isSigned: isSigned, on: backend)
        (kept.codes, kept.scales) = (try #require(before[name + ".codes"]), try #require(before[name + ".scales"]))
        return backend.decoded(kept)
      }
      var x = backend.zeros(parameter.shape)
      var (m, v) = (try moment("m.\(parameter.name)", isSigned: true), try moment("v.\(parameter.name)", isSigned: false))
      backend.adamW(
        &x, gradient: try #require(gradients[parameter.name]), factor: nil, &m, &v,
        AdamWSettings(learningRate: 0.01, weightDecay: 0.1, step: step), range: nil)
      for (name, value, isSigned) in [("m.\(parameter.name)", m, true), ("v.\(parameter.name)", v, false)] {
        let values = try backend.download(value)
        if let whole = after[name] {
          #expect(try backend.download(whole) == values)
          #expect(largestError(values, try floats("\(step).\(name)")) < 1e-6, "\(step).\(name)")
          continue
        }
        let (map, theirs) = (try floats(isSigned ? "map.signed" : "map.unsigned"), try bytes("\(step).\(name)"))
        let scales = try backend.download(try #require(after[name + ".scales"]))
        let ours = try backend.download(try #require(after[name + ".codes"])).withUnsafeBytes { Array($0.prefix(theirs.count)) }
        #expect(largestError(scales, try floats("\(step).\(name).scale")) < 1e-6, "\(step).\(name)")
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
  private func state(_ name: String, _ shape: Shape, after step: Int, on backend: CPUFloat) throws -> Tensor<CPUFloat> {
    if name.hasSuffix(".scales") { return backend.upload(try floats("\(step).\(name.dropLast())"), shape) }
    if !name.hasSuffix(".codes") { return backend.upload(try floats("\(step).\(name)"), shape) }
    let codes = try bytes("\(step).\(name.dropLast(6))")
    let words = codes + Array(repeating: 0, count: 4 * shape.count - codes.count)
    return backend.upload(
      words.withUnsafeBytes { raw in (0..<shape.count).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) } }, shape)
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
