import Tensors
import Testing

@testable import CUDABackend

/// The suite's frozen matrices hold numbers around 1; here are halves of every class: subnormal, infinite, NaN.
@Suite struct EncodedTests {
  @Test(arguments: [WeightFormat.float16, .bfloat16, .q8_0, .q4_0, .q4_1])
  func kernelsDecodeEveryHalfAsTheHostDoes(_ format: WeightFormat) throws {
    let backend = try CUDAFloat(EmulatedDevice.open(seed: 3), isPoisoned: true)
    let step: UInt16 = format.blockCount == 1 ? 1 : 31
    let bytes = stride(from: 0, through: UInt16.max, by: UInt16.Stride(step)).flatMap { bits -> [UInt8] in
      let half = [UInt8(bits & 255), UInt8(bits >> 8)]
      // A block's scale, its minimum or first numbers, and bytes of every value.
      let rest = (2..<max(2, format.blockBytes)).map { UInt8(truncatingIfNeeded: 37 * $0 + 11 * Int(bits / step)) }
      return half + rest
    }
    let shape = Shape(1, bytes.count / format.blockBytes * format.blockCount)
    let (frozen, onHost) = bytes.withUnsafeBytes { (backend.freeze($0, format, shape), backend.upload($0, format, shape)) }
    let onDevice = backend.embedding(backend.upload([0]), .frozen(frozen, transposed: false))
    let (found, expected) = (try backend.download(onDevice), try backend.download(onHost))
    let wrong = found.indices.filter { found[$0].bitPattern != expected[$0].bitPattern && !(found[$0].isNaN && expected[$0].isNaN) }
    #expect(wrong.isEmpty, "\(wrong.count), first \(wrong.first.map { "\($0): \(found[$0]), expected \(expected[$0])" } ?? "")")
  }
}
