import Tensors
import Testing

@testable import CPUBackend

/// What the conformance suite does not ask of every backend: bits, and digits of sums that it has no time for.
@Suite struct OperationTests {
  @Test func floatFormatsAreDecodedWhereverTheyBegin() throws {
    for shift in 0..<3 {
      func bytes(_ count: Int, _ fill: (UnsafeMutableRawPointer) -> Void) -> UnsafeMutableRawBufferPointer {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count + 4, alignment: 16)
        if let base = buffer.baseAddress { fill(base + shift) }
        return buffer
      }
      let halves = bytes(2 << 16) { for i in 0..<1 << 16 { $0.storeBytes(of: UInt16(i), toByteOffset: 2 * i, as: UInt16.self) } }
      defer { halves.deallocate() }
      let raw = UnsafeRawBufferPointer(rebasing: halves[shift..<shift + 2 << 16])
      let (half, brain) = (CPUDouble(threads: 1), CPUFloat(threads: 1))
      let decoded = try half.download(half.upload(raw, .float16, Shape(256, 256)))
      let upper = try brain.download(brain.upload(raw, .bfloat16, Shape(256, 256)))
      for i in 0..<1 << 16 {
        let (exponent, fraction) = ((i >> 10) & 31, Double(i & 1023))
        let sign: Double = i >> 15 == 1 ? -1 : 1
        let power = Double(sign: .plus, exponent: max(exponent, 1) - 15, significand: 1)
        let expected = exponent == 31 ? (fraction == 0 ? Double.infinity : .nan) : power * (fraction / 1024 + (exponent > 0 ? 1 : 0))
        #expect(decoded[i] == sign * expected || (decoded[i].isNaN && expected.isNaN))
        #expect(upper[i].bitPattern == UInt32(i) << 16 || upper[i].isNaN)
      }
      let numbers: [Float] = [1.5, -2.25, 0x1p-130, .infinity]
      let singles = bytes(16) { for i in 0..<4 { $0.storeBytes(of: numbers[i], toByteOffset: 4 * i, as: Float.self) } }
      defer { singles.deallocate() }
      let frozen = half.freeze(UnsafeRawBufferPointer(rebasing: singles[shift..<shift + 16]), .float32, Shape(4))
      #expect(try half.download(half.vector(frozen)) == numbers.map { Double($0) })
      let doubles = bytes(32) { for i in 0..<4 { $0.storeBytes(of: Double(numbers[i]), toByteOffset: 8 * i, as: Double.self) } }
      defer { doubles.deallocate() }
      let narrowed = brain.upload(UnsafeRawBufferPointer(rebasing: doubles[shift..<shift + 32]), .float64, Shape(4))
      #expect(try brain.download(narrowed) == numbers)
    }
  }

  /// A row with one 1 meets one number of each row of the matrix, which no sum rounds: the number that the format defines, to the bit.
  @Test(arguments: [WeightFormat.float16, .q8_0, .q4_0, .q4_1, .q5_0, .q5_1, .q4_K])
  func aRowTimesAnEncodedMatrixMeetsTheNumbersOfItsFormat(_ format: WeightFormat) throws {
    let (b, rows, columns) = (CPUFloat(threads: 2), 3, max(64, format.blockCount))
    var state: UInt32 = 1
    var bytes = (0..<rows * format.rowBytes(columns)).map { _ -> UInt8 in
      state = state &* 1_664_525 &+ 1_013_904_223
      return UInt8(truncatingIfNeeded: state >> 24)
    }
    // Halves below 2: the upper byte of every number, or of what stands first in a block.
    let step = format.blockCount == 1 ? 2 : format.blockBytes
    for block in stride(from: 0, to: bytes.count, by: step) {
      for place in format.blockCount == 1 ? [1] : [1, 3] { bytes[block + place] &= 0xbf }
    }
    let (numbers, frozen) = try bytes.withUnsafeBytes {
      (try b.download(b.upload($0, format, Shape(rows, columns))), b.freeze($0, format, Shape(rows, columns)))
    }
    for j in 0..<columns {
      let one = b.upload((0..<columns).map { $0 == j ? 1 : 0 }, Shape(1, columns))
      var y = b.empty(Shape(1, rows))
      b.gemm(1, one.operand, .frozen(frozen, transposed: true), 0, into: &y, rows: nil)
      #expect(try b.download(y) == (0..<rows).map { numbers[$0 * columns + j] }, "column \(j)")
    }
  }

  @Test func aLongSumOverTheRowsOfAnEncodedMatrixKeepsItsDigitsForFewRowsAndForMany() throws {
    // A term added 65 536 times to one running float32 sum is lost by 6e-4; a head's gradient sums 49 152 terms.
    let (b, terms, width) = (CPUFloat(threads: 2), 1 << 16, 32)
    let ones = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * terms * width, alignment: 16)
    defer { ones.deallocate() }
    ones.initializeMemory(as: UInt16.self, repeating: 0x3F80)  // 1 in bfloat16
    let w = b.freeze(UnsafeRawBufferPointer(ones), .bfloat16, Shape(terms, width))
    for count in [1, 4, 8, 9] {
      let a = b.upload([Float](repeating: 0.1, count: count * terms), Shape(count, terms))
      var y = b.empty(Shape(count, width))
      b.gemm(1, a.operand, .frozen(w, transposed: false), 0, into: &y, rows: nil)
      let expected = Double(Float(0.1)) * Double(terms)
      for value in try b.download(y) { #expect(abs(Double(value) - expected) <= 5e-5 * expected, "\(count) rows") }
    }
  }

  @Test func theClipFactorIsTorchsAndNaNWhereNormOrLossIsNotFinite() throws {
    let b = CPUDouble(threads: 1)
    func factor(_ squaredNorm: Double, _ loss: Double, _ maximum: Double) throws -> Double {
      try b.download(b.clipFactor(b.upload([squaredNorm], Shape(1)), loss: b.upload([loss], Shape(1)), maximum: maximum).factor)[0]
    }
    #expect(try factor(4, 1, 1) == 1 / (2 + 1e-6))
    #expect(try factor(4, 1, 3) == 1)
    #expect(try factor(4, 1, 0) == 1)
    #expect(try factor(.infinity, 1, 1).isNaN)
    #expect(try factor(4, .nan, 0).isNaN)
  }

  @Test func tiesGoToTheLowerIndexAndNaNComesLast() throws {
    let b = CPUFloat(threads: 1)
    let p = b.upload([1, 3, 3, .nan, .nan, .nan, -.infinity, .nan, 0, -.infinity, 7, .nan], Shape(3, 4))
    #expect(try b.download(b.choose(p, .topK(3))) == [1, 2, 0, 0, 1, 2, 2, 0, 1])
  }

  @Test(arguments: [1, 2, 3]) func theSameRunGivesTheSameBits(threads: Int) throws {
    func run() throws -> [[Float]] {
      let b = CPUFloat(threads: threads)
      let x = b.random(Shape(300, 192), .normal(deviation: 1), RandomKey(seed: 1))
      let w = b.random(Shape(192), .normal(deviation: 1), RandomKey(seed: 2))
      var y = b.zeros(Shape(300, 192))
      b.gemm(1, b.matmul(x, x.T).operand, x.operand, 0, into: &y, rows: nil)
      let form = AttentionForm(heads: 6, keyValueHeads: 3, headWidth: 32, scale: 0.2)
      let plan = SequencePlan(offsets: [0, 100, 300], on: b)
      let kv = x.columns(0..<96)
      let (o, l) = b.attention(x, kv, kv, plan, form)
      let (dq, dk, dv) = b.attentionBackward(y, x, kv, kv, output: o, logSumExp: l, plan, form)
      var sums = b.zeros(Shape(192))
      b.addColumnSums(x, weights: nil, into: &sums)
      let (normed, rho) = b.rmsNorm(x, w, offset: 0, epsilon: 1e-5)
      b.rmsNormWeightGradient(y, x, rho: rho, into: &sums)
      return try [y, o, dq, dk, dv, sums, normed, b.dot(x, y)].map { try b.download($0) }
    }
    let first = try run()
    for _ in 0..<5 { #expect(try run() == first) }
  }

  @Test func sumsOverRowsDoNotDependOnTheNumberOfThreads() throws {
    func run(_ threads: Int) throws -> [[Float]] {
      let b = CPUFloat(threads: threads)
      let x = b.random(Shape(700, 190), .normal(deviation: 1), RandomKey(seed: 1))
      var sums = b.zeros(Shape(190))
      b.addColumnSums(x, weights: nil, into: &sums)
      let rho = b.rmsNorm(x, sums, offset: 0, epsilon: 1e-5).rho
      b.rmsNormWeightGradient(x, x, rho: rho, into: &sums)
      var table = b.zeros(Shape(9, 190))
      b.addEmbeddingGradient(1, x, b.upload((0..<700).map { Int32($0 % 9) }), into: &table)
      return try [sums, table, b.sum(x), b.dot(x, x), b.rowDots(x, x)].map { try b.download($0) }
    }
    let one = try run(1)
    #expect(try run(2) == one)
    #expect(try run(3) == one)
  }
}
