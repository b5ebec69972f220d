import CVectors
import Tensors

// One row times the rows of a matrix with blocks of 32 numbers: what decoding a token mostly is. A block's numbers are formed eight at a
// time, each the float32 number that the format defines, and go into four sums of eight lanes without a way through memory. Eight numbers
// of q4_1 take six instructions, widen, mask, convert, times d, plus m, fused multiply-add, and the two scales of a block three.

/// Bytes from the block that is being read to the one that is asked for: rows follow each other in memory.
private let ahead = 1024

extension Float {
  static func multiply(
    _ alpha: Float, _ x: UnsafeMutablePointer<Float>, _ w: EncodedMatrix, _ rows: Range<Int>, _ beta: Float,
    _ y: UnsafeMutablePointer<Float>
  ) -> Bool {
    switch w.format {
    case .q8_0: multiply(Q8_0Encoding.self, alpha, x, w, rows, beta, y)
    case .q4_0: multiply(Q4_0Encoding.self, alpha, x, w, rows, beta, y)
    case .q4_1: multiply(Q4_1Encoding.self, alpha, x, w, rows, beta, y)
    case .q5_0: multiply(Q5_0Encoding.self, alpha, x, w, rows, beta, y)
    case .q5_1: multiply(Q5_1Encoding.self, alpha, x, w, rows, beta, y)
    default: return false
    }
    return true
  }

  @inline(__always)
  private static func multiply<E: BlockEncoding>(
    _: E.Type, _ alpha: Float, _ x: UnsafeMutablePointer<Float>, _ w: EncodedMatrix, _ rows: Range<Int>, _ beta: Float,
    _ y: UnsafeMutablePointer<Float>
  ) {
    let columns = w.columns
    for o in rows {
      var (block, s0, s1, s2, s3) = (w[o], Vector(), Vector(), Vector(), Vector())
      for j in stride(from: 0, to: columns, by: 32) {
        vectors_prefetch(block + ahead)
        let (scales, x) = (E.scales(block), UnsafeRawPointer(x + j))
        s0 = vectors_multiply_add(E.eight(block, scales, 0), x.loadUnaligned(as: Vector.self), s0)
        s1 = vectors_multiply_add(E.eight(block, scales, 8), x.loadUnaligned(fromByteOffset: 32, as: Vector.self), s1)
        s2 = vectors_multiply_add(E.eight(block, scales, 16), x.loadUnaligned(fromByteOffset: 64, as: Vector.self), s2)
        s3 = vectors_multiply_add(E.eight(block, scales, 24), x.loadUnaligned(fromByteOffset: 96, as: Vector.self), s3)
        block += E.chunkBytes
      }
      let dot = total((s0 + s1) + (s2 + s3))
      y[o] = beta == 0 ? alpha * dot : alpha * dot + beta * y[o]
    }
  }
}

extension Double {
  /// The oracle decodes rows, and takes their products as those of any matrix.
  static func multiply(
    _ alpha: Double, _ x: UnsafeMutablePointer<Double>, _ w: EncodedMatrix, _ rows: Range<Int>, _ beta: Double,
    _ y: UnsafeMutablePointer<Double>
  ) -> Bool { false }
}
