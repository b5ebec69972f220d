import Foundation
import Platform
import Synchronization
import Tensors
import Testing

@testable import CPUBackend

@Suite struct ThreadPoolTests {
  @Test(arguments: [1, 2, 3]) func everyPartRunsExactlyOnceTenThousandTimesOver(threads: Int) {
    let pool = ThreadPool(threads: threads)
    let sizes = [0, 1, 2, 3, 7, 16, 64, 1000]
    for run in 0..<10_000 {
      let parts = sizes[run % sizes.count]
      withUnsafeTemporaryAllocation(of: Int32.self, capacity: 1000) { hits in
        hits.initialize(repeating: 0)
        pool.parallel(parts) { part, thread in
          hits[part] += 1
          if thread < 0 || thread >= threads { hits[part] = 100 }
        }
        for part in 0..<1000 where hits[part] != (part < parts ? 1 : 0) { Issue.record("run \(run), part \(part): \(hits[part])") }
      }
    }
  }

  @Test func workersThatWentToSleepWakeForTheNextLoop() async throws {
    let pool = ThreadPool(threads: 3)
    for _ in 0..<20 {
      let count = Atomic<Int>(0)
      pool.parallel(100) { _ in count.add(1, ordering: .relaxed) }
      #expect(count.load(ordering: .relaxed) == 100)
      try await Task.sleep(for: .milliseconds(2))
    }
  }

  @Test func manyPoolsComeAndGo() {
    for i in 0..<200 {
      let pool = ThreadPool(threads: 1 + i % 4)
      let count = Atomic<Int>(0)
      pool.parallel(i % 5) { _ in count.add(1, ordering: .relaxed) }
      #expect(count.load(ordering: .relaxed) == i % 5)
    }
  }
}

@Suite struct BufferPoolTests {
  @Test func aSizeClassIsTheLeastThatHoldsTheBytesAndWastesLessThanAQuarter() {
    for bytes in 0..<100_000 {
      let sizeClass = FreeBlocks<Int>.sizeClass(bytes)
      let size = FreeBlocks<Int>.byteCount(sizeClass)
      guard size >= bytes, sizeClass == 0 || FreeBlocks<Int>.byteCount(sizeClass - 1) < bytes, bytes <= 256 || size * 4 <= bytes * 5 + 1024
      else { return #expect(Bool(false), "\(bytes) bytes: class \(sizeClass) of \(size)") }
    }
    for exponent in 10..<45 {
      for bytes in [1 << exponent - 1, 1 << exponent, 1 << exponent + 1] {
        #expect(FreeBlocks<Int>.byteCount(FreeBlocks<Int>.sizeClass(bytes)) >= bytes)
      }
    }
  }

  @Test func aReleasedBufferIsHandedOutAgainAlignedTo64Bytes() {
    let pool = BufferPool(isPoisoned: false)
    var first: Buffer<Float>? = pool.buffer(1000)
    let address = first.map { UInt(bitPattern: $0.pointer) } ?? 0
    first = nil
    let second: Buffer<Double> = pool.buffer(500)
    #expect(UInt(bitPattern: second.pointer) == address)
    #expect(address % 64 == 0)
    #expect(pool.free.misses == 1)
    let third: Buffer<Double> = pool.buffer(500)
    #expect(third.pointer != second.pointer)
    #expect(pool.free.misses == 2)
  }

  @Test func theSecondRoundOfTheSameOperationsAllocatesNothing() {
    let b = CPUFloat(threads: 2)
    func round() {
      let q = b.random(Shape(130, 64), .normal(deviation: 1), RandomKey(seed: 1))
      let k = b.random(Shape(130, 32), .normal(deviation: 1), RandomKey(seed: 2))
      let form = AttentionForm(heads: 4, keyValueHeads: 2, headWidth: 16, scale: 0.25)
      let plan = SequencePlan(offsets: [0, 70, 130], on: b)
      let (o, l) = b.attention(q, k, k, plan, form)
      _ = b.attentionBackward(o, q, k, k, output: o, logSumExp: l, plan, form)
      let p = b.softmax(k)
      let routing = b.route(p, choice: b.choose(p, .topK(3)), .topK(3))
      var y = b.combine(b.dispatch(q, routing), weights: routing.weights, routing)
      var sums = b.zeros(Shape(64))
      b.addColumnSums(y, weights: nil, into: &sums)
      b.gemm(1, k.T, q.operand, 0, into: &y, rows: 0..<32)
      _ = b.sum(y)
    }
    round()
    let before = b.counters
    for _ in 0..<3 { round() }
    #expect((b.counters - before).poolMisses == 0)
    #expect(b.counters.sharedCopies == 0)
  }

  /// Large vectors of zeros take memory only as parts of them are written, and as much of what is free is then given back.
  @Test(arguments: [false, true]) func zerosThatNobodyWroteTakeNoMemory(isPoisoned: Bool) throws {
    let b = CPUFloat(threads: 1, isPoisoned: isPoisoned)
    let mebibyte = 1 << 20
    let parameters = (0..<4).map { Parameter<CPUFloat>("p\($0)", Shape(512, 512)) }  // 1 MiB each
    let arena = ParameterArena(parameters, on: b)
    func gradients() throws -> [Float] { try b.download(arena.gradients) }
    #expect(try gradients().count == 4 * 512 * 512 && gradients().allSatisfy { $0.bitPattern == 0 })
    #expect(b.core.pool.free.bytes == 0 && b.counters.poolBytes == 0)
    b.fill(1, &parameters[0].gradient)
    #expect(b.core.pool.free.bytes == mebibyte)
    do { _ = b.empty(Shape(4, 3 << 18)) }  // 12 MiB, free from here on
    #expect(b.core.pool.free.bytes == 13 * mebibyte)
    b.fill(1, &parameters[1].gradient)
    #expect(b.core.pool.free.bytes == 2 * mebibyte, "the 12 MiB were given back")
    b.fill(1, &parameters[2].gradient)
    b.fill(1, &parameters[2].gradient)
    #expect(b.core.pool.free.bytes == 4 * mebibyte, "how often a part was written nobody counts")
    #expect(try gradients() == (0..<4 << 18).map { $0 < 3 << 18 ? 1 : 0 })
    b.fill(0, &arena.gradients)
    #expect(b.core.pool.free.bytes == 0)
    #expect(try gradients().allSatisfy { $0.bitPattern == 0 })
    let misses = b.counters.poolMisses
    do { _ = b.empty(Shape(4, 3 << 18)) }
    #expect(b.counters.poolMisses == misses, "a block that was given back is taken again")
    #expect(b.counters.poolBytes == 13 * mebibyte && b.counters.sharedCopies == 0)
    // Zeros in a block that is longer than they are: nothing of it is left when they are released.
    b.endWarmUp()
    let before = b.core.pool.free.bytes
    do {
      let zeros = b.zeros(Shape(1 << 18))
      #expect(b.counters.poolMisses == misses && b.core.pool.free.bytes <= before)
      withExtendedLifetime(zeros) {}
    }
    #expect(b.core.pool.free.bytes <= before - 12 * mebibyte)
  }

  @Test func ofABlockThatFillsLargePagesTheseAloneAreGivenBack() {
    let kibibytes = 1 << 10
    var free = FreeBlocks<String>()
    let (small, large) = (free.take(1280 * kibibytes) { _ in "small" }, free.take(3072 * kibibytes) { _ in "large" })
    free.put(small.block, small.sizeClass)
    free.put(large.block, large.sizeClass)
    var given: [String] = []
    free.refill(1024 * kibibytes) { given.append("\($0) \($1 / kibibytes)") }
    #expect(given == ["large 2048"], "the largest first")
    #expect(free.bytes == (1280 + 1024 + 1024) * kibibytes)
    #expect(free.take(3072 * kibibytes) { _ in "new" }.block == "large")
    #expect(free.bytes == (1280 + 3072 + 1024) * kibibytes && free.peakBytes == free.bytes && free.misses == 2)
    free.refill(512 * kibibytes) { given.append("\($0) \($1 / kibibytes)") }
    #expect(given == ["large 2048", "small 1280"], "a block of small pages gives all of itself")
    #expect(free.bytes == (3072 + 1024 + 512) * kibibytes)
    #expect(free.take(1280 * kibibytes) { _ in "new" }.block == "small")
    #expect(free.bytes == (1280 + 3072 + 1024 + 512) * kibibytes)
    free.put(large.block, large.sizeClass)
    free.refill(3072 * kibibytes) { given.append("\($0) \($1 / kibibytes)") }
    #expect(given.suffix(2) == ["large 2048", "large 3072"], "what is left of it, before more is taken than ever before")
    #expect(free.bytes == (1280 + 1024 + 512 + 3072) * kibibytes && free.peakBytes == free.bytes && free.misses == 2)
  }

  @Test func aPoisonedPoolShowsWhatNobodyWrote() throws {
    let b = CPUDouble(threads: 1, isPoisoned: true)
    #expect(try b.download(b.empty(Shape(3, 5))).allSatisfy(\.isNaN))
    #expect(try b.download(b.zeros(Shape(3, 5))).allSatisfy { $0 == 0 })
  }
}

@Suite struct CopyOnWriteTests {
  @Test func writingIntoSharedStorageCopiesItOnceAndCounts() throws {
    let b = CPUDouble(threads: 1)
    var x = b.upload([1, 2, 3, 4, 5, 6], Shape(2, 3))
    b.scale(2, &x)
    #expect(b.counters.sharedCopies == 0)
    let kept = x
    b.scale(2, &x)
    b.scale(2, &x)
    #expect(b.counters.sharedCopies == 1)
    #expect(try b.download(kept) == [2, 4, 6, 8, 10, 12])
    #expect(try b.download(x) == [8, 16, 24, 32, 40, 48])
  }

  @Test func ofAViewOnlyTheViewIsCopied() throws {
    let b = CPUDouble(threads: 1)
    let x = b.upload((0..<40).map { Double($0) }, Shape(4, 10))
    var view = x.rows(1..<3).columns(2..<5)
    b.scale(-1, &view)
    #expect(view.isContiguous)
    #expect(view.storage.count == 6)
    #expect(try b.download(view) == [-12, -13, -14, -22, -23, -24])
    #expect(try b.download(x) == (0..<40).map { Double($0) })
    b.add(1, x.rows(0..<2).columns(0..<3), into: &view)
    #expect(try b.download(view) == [-12, -12, -12, -12, -12, -12])
    #expect(b.counters.sharedCopies == 1)
  }

  @Test func aProductIntoOneOfItsOwnFactorsReadsTheOldValues() throws {
    let b = CPUDouble(threads: 1)
    var x = b.upload([1, 2, 3, 4], Shape(2, 2))
    let factor = x
    b.gemm(1, factor.operand, factor.operand, 0, into: &x, rows: nil)
    #expect(try b.download(x) == [7, 10, 15, 22])
    #expect(b.counters.sharedCopies == 1)
  }

  @Test func bytesThatCrossBetweenHostAndDeviceAreCounted() throws {
    let b = CPUFloat(threads: 1)
    let x = b.upload([1, 2, 3], Shape(3))
    _ = b.upload([1, 2] as [Int32])
    _ = try b.download(x)
    #expect(b.counters.bytesToDevice == 20)
    #expect(b.counters.bytesToHost == 12)
  }
}

@Suite struct ExponentialTests {
  /// Distance from the true value in units of the last place of the Float next to it.
  func ulps(_ found: Float, _ x: Float) -> Double {
    let exact = Double.exp(Double(x))
    if exact >= 0x1.ffffffp127 { return found == .infinity ? 0 : .infinity }
    let unit = max(Double(Float(exact).ulp), 0x1p-149)
    let error = abs(Double(found) - exact) / unit
    return found.isFinite ? error : .infinity
  }

  @Test func floatExpIsWithin1UlpOverItsWholeRange() {
    var worst = (0.0, Float(0))
    // Every 509th Float from −110 to 95; all of them were measured once: at most 0.991 ulp.
    for (sign, limit) in [(Float(1), Float(95)), (-1, 110)] {
      var bits: UInt32 = 0
      while Float(bitPattern: bits) < limit {
        var x = SIMD8<Float>()
        for i in 0..<8 { x[i] = sign * Float(bitPattern: bits + UInt32(509 * i)) }
        let e = Float.exp(x)
        for i in 0..<8 {
          let error = ulps(e[i], x[i])
          if !(error <= worst.0) { worst = (error, x[i]) }
        }
        bits += 8 * 509
      }
    }
    print("float exp: at most \(worst.0) ulp, at \(worst.1)")
    #expect(worst.0 <= 1)
  }

  @Test func expOfTheSpecialValues() {
    let x = SIMD8<Float>(.infinity, -.infinity, .nan, 88.722_84, 88.722_83, -104, 0, -.greatestFiniteMagnitude)
    let e = Float.exp(x)
    #expect(e[0] == .infinity && e[1] == 0 && e[2].isNaN && e[3] == .infinity && e[4].isFinite && e[5] == 0 && e[6] == 1 && e[7] == 0)
    #expect(Float.exp(SIMD8(repeating: .greatestFiniteMagnitude))[3] == .infinity)
    let d = Double.exp(SIMD4(.infinity, -.infinity, .nan, 0))
    #expect(d[0] == .infinity && d[1] == 0 && d[2].isNaN && d[3] == 1)
  }

  @Test func floatTanhIsWithin2UlpOverItsWholeRangeAndExactAtItsEnds() {
    var worst = 0.0
    for sign in [Float(1), -1] {
      var bits: UInt32 = 0
      while Float(bitPattern: bits) < 12 {
        var x = SIMD8<Float>()
        for i in 0..<8 { x[i] = sign * Float(bitPattern: bits + UInt32(509 * i)) }
        let y = Float.tanh(x)
        for i in 0..<8 {
          let exact = Double.tanh(Double(x[i]))
          let error = abs(Double(y[i]) - exact) / max(Double(Float(exact).ulp), 0x1p-149)
          if !(error <= worst) { worst = error }
        }
        bits += 8 * 509
      }
    }
    print("float tanh: at most \(worst) ulp")
    #expect(worst <= 2)
    let ends = Float.tanh(SIMD8(.infinity, -.infinity, .nan, 0, -0.0, 100, -100, .greatestFiniteMagnitude))
    #expect(ends[0] == 1 && ends[1] == -1 && ends[2].isNaN && ends[3] == 0 && ends[4] == 0 && ends[5] == 1 && ends[6] == -1 && ends[7] == 1)
  }

  @Test(arguments: [(Activation.silu, Float(1e30)), (.geluTanh, 1e12)])
  func aGatedUnitOfHugeArgumentsIsNoNaN(activation: Activation, huge: Float) throws {
    let b = CPUFloat(threads: 1)
    let values: [Float] = [-huge, -1000, -104, -89, -88, 88, 89, 1000, huge]
    let a = b.upload(values, Shape(1, values.count))
    let c = b.upload([Float](repeating: 1, count: values.count), Shape(1, values.count))
    let h = try b.download(b.gated(activation, a, c))
    #expect(h.prefix(4).allSatisfy { $0 <= 0 && $0 > -1e-36 } && Array(h.suffix(4)) == Array(values.suffix(4)))
    let (da, dc) = b.gatedBackward(activation, c, a, c)
    #expect(try (b.download(da) + b.download(dc)).allSatisfy { !$0.isNaN })
  }
}

@Suite struct PhiloxTests {
  /// The key whose bits are those given. `RandomKey` has no such initializer, as nobody else should need it.
  func key(_ bits: UInt64) -> RandomKey { unsafeBitCast(bits, to: RandomKey.self) }

  func vector(_ counter: SIMD4<UInt32>, _ key: RandomKey) -> [UInt32] {
    withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 4 * PhiloxVector.blocks) { numbers in
      guard let base = numbers.baseAddress else { return [] }
      PhiloxVector(key).write(from: counter, to: base)
      return Array(numbers)
    }
  }

  @Test func Random123sKnownAnswersScalarAndVector() {
    let zeros: [UInt32] = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
    let ones: [UInt32] = [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    let scalar0 = Philox.numbers(counter: .zero, key: key(0))
    let scalar1 = Philox.numbers(counter: SIMD4(repeating: .max), key: key(.max))
    #expect((0..<4).map { scalar0[$0] } == zeros)
    #expect((0..<4).map { scalar1[$0] } == ones)
    #expect(Array(vector(.zero, key(0)).prefix(4)) == zeros)
    #expect(Array(vector(SIMD4(repeating: .max), key(.max)).prefix(4)) == ones)
  }

  @Test func theVectorFormEqualsTheDefinitionOnAnyCounter() {
    var counter = SIMD4<UInt32>(1, 2, 3, 4)
    for i in 0..<200 {
      let key = RandomKey(seed: UInt64(i))
      let found = vector(counter, key)
      for block in 0..<PhiloxVector.blocks {
        let expected = Philox.numbers(counter: counter &+ SIMD4(UInt32(block), 0, 0, 0), key: key)
        #expect((0..<4).allSatisfy { found[4 * block + $0] == expected[$0] })
      }
      let threshold = counter[0] & 0xffff
      var bytes = [UInt8](repeating: 0, count: 2 * PhiloxVector.blocks)
      bytes.withUnsafeMutableBufferPointer { bytes in
        if let base = bytes.baseAddress { PhiloxVector(key).compare(from: counter, blocks: PhiloxVector.blocks + 3, threshold, to: base) }
      }
      for (block, byte) in bytes.enumerated() {
        let numbers = Philox.numbers(counter: counter &+ SIMD4(0, 0, 0, UInt32(block)), key: key)
        #expect((0..<8).allSatisfy { (byte >> $0 & 1 == 1) == (numbers[$0 / 2] >> UInt32(16 * ($0 % 2)) & 0xffff >= threshold) })
      }
      counter = Philox.numbers(counter: counter, key: key)
    }
  }

  @Test func randomNumbersFollowTheirDefinitionInBothPrecisionsWhateverTheNumberOfThreads() throws {
    for count in [0, 1, 2, 3, 511, 512, 513, 4099] {
      let key = RandomKey(seed: 5)
      for distribution in [Distribution.uniform(bound: 0.7), .normal(deviation: 0.3)] {
        let found = try CPUDouble(threads: 3).download(CPUDouble(threads: 3).random(Shape(count), distribution, key))
        let float = try CPUFloat(threads: 2).download(CPUFloat(threads: 2).random(Shape(count), distribution, key))
        for i in 0..<count {
          let a = Philox.numbers(counter: SIMD4(UInt32(i / 4), 0, 0, 0), key: key)
          let expected: Double
          switch distribution {
          case .uniform(let bound): expected = bound * (2 * Double(a[i % 4] >> 8) / 0x1p24 - 1)
          case .normal(let deviation):
            let pair = i % 4 / 2 * 2
            let radius = (-2 * Double.log((Double(a[pair]) + 1) / 0x1p32)).squareRoot()
            let angle = 2 * Double.pi * Double(a[pair + 1]) / 0x1p32
            expected = deviation * radius * (i % 2 == 0 ? Double.cos(angle) : Double.sin(angle))
          }
          #expect(abs(found[i] - expected) <= 1e-15)
          #expect(float[i] == Float(found[i]))
        }
      }
    }
  }
}

@Suite struct TrapTests {
  /// The process that stops inherits this; making a backtrace of it can hang for minutes.
  init() { setenv("SWIFT_BACKTRACE", "enable=no", 1) }

  @Test func aWrongShapeStopsTheProgram() async {
    await #expect(processExitsWith: .failure) {
      let b = CPUFloat(threads: 1)
      var y = b.zeros(Shape(2, 3))
      b.add(1, b.zeros(Shape(3, 2)), into: &y)
    }
    await #expect(processExitsWith: .failure) {
      let b = CPUFloat(threads: 1)
      var y = b.zeros(Shape(2, 3))
      b.gemm(1, b.zeros(Shape(2, 4)).operand, b.zeros(Shape(5, 3)).operand, 0, into: &y, rows: nil)
    }
    await #expect(processExitsWith: .failure) {
      let b = CPUFloat(threads: 1)
      _ = b.upload([1, 2, 3], Shape(2, 2))
    }
  }

  @Test func anIndexOutsideItsTableStopsTheProgram() async {
    await #expect(processExitsWith: .failure) {
      let b = CPUFloat(threads: 1)
      var logits = b.zeros(Shape(1, 4))
      _ = b.crossEntropy(&logits, labels: b.upload([4]), scale: 1, softcap: nil)
    }
    await #expect(processExitsWith: .failure) {
      let b = CPUFloat(threads: 1)
      _ = b.embedding(b.upload([-1]), b.zeros(Shape(3, 2)).operand)
    }
  }

  @Test func aChoiceOutsideTheExpertsOrTwiceTheSameStopsTheProgram() async {
    await #expect(processExitsWith: .failure) {
      let b = CPUFloat(threads: 1)
      _ = b.route(b.zeros(Shape(1, 4)), choice: b.upload([4, 0]), .topK(2))
    }
    await #expect(processExitsWith: .failure) {
      let b = CPUFloat(threads: 1)
      _ = b.route(b.zeros(Shape(1, 4)), choice: b.upload([1, 1]), .topK(2))
    }
  }
}
