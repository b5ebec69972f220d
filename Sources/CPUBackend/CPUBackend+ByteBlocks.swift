import Tensors

// Numbers in 8 bits. A number's code is looked up by the upper half of its float32: the table has the code of each half's first number,
// from which that of the number is a step away at most.
extension CPUBackend {
  public func decoded(_ x: ByteBlocks<Self>) -> Tensor<Self> {
    core.timed("decoded") {
      let (y, ys) = fresh(x.shape)
      let (codes, scales, map) = (bytes(rows(x.codes)), rows(x.scales).base, rows(x.map).base)
      forByteBlocks(x) { block, range in
        let scale = scales[block]
        for i in range { ys.base[i] = scale * map[Int(codes[i])] }
      }
      return y
    }
  }

  public func encode(_ x: Tensor<Self>, into y: inout ByteBlocks<Self>, factor: Tensor<Self>?) {
    core.timed("encode") {
      requireShapes("encode", ("x", x.shape, y.shape))
      guard x.isContiguous else { trap("encode: x has gaps") }
      if let factor, !rows(factor).base[0].isFinite { return }
      let (codes, scales) = (bytes(writable(&y.codes)), writable(&y.scales).base)
      let xs = rows(x).base
      let nearest = y.isSigned ? NearestCodes.signed : NearestCodes.unsigned
      nearest.first.withUnsafeBufferPointer { first in
        nearest.middles.withUnsafeBufferPointer { middles in
          forByteBlocks(y) { block, range in
            var scale: Scalar = 0
            for i in range where !(abs(xs[i]) <= scale) && !scale.isNaN { scale = xs[i].isFinite ? abs(xs[i]) : .nan }
            scales[block] = scale
            if scale == 0 { return (codes + range.lowerBound).update(repeating: 0, count: range.count) }
            for i in range {
              let value = Float(xs[i] / scale)
              var code = Int(first[Int(value.bitPattern >> 16)])
              while code < 255, value > middles[code] { code += 1 }
              while code > 0, value <= middles[code - 1] { code -= 1 }
              codes[i] = UInt8(truncatingIfNeeded: code)
            }
          }
        }
      }
    }
  }

  private func bytes(_ rows: Rows<Scalar>) -> UnsafeMutablePointer<UInt8> {
    UnsafeMutableRawPointer(rows.base).assumingMemoryBound(to: UInt8.self)
  }

  /// Calls `body` with every block and its elements.
  @inline(__always)
  private func forByteBlocks(_ x: ByteBlocks<Self>, _ body: (_ block: Int, _ elements: Range<Int>) -> Void) {
    let (count, size) = (x.shape.count, ByteBlocks<Self>.blockCount)
    forRanges((count + size - 1) / size, cost: 4 * size) { blocks in
      for block in blocks { body(block, block * size..<min((block + 1) * size, count)) }
    }
  }
}

/// Where in a map the nearest values of numbers are.
private struct NearestCodes: Sendable {
  /// What lies halfway between a value and the next.
  let middles: [Float]
  /// The code of the first float32 of each upper half.
  let first: [UInt8]

  static let signed = NearestCodes(isSigned: true)
  static let unsigned = NearestCodes(isSigned: false)

  private init(isSigned: Bool) {
    let values = DynamicMap.values(isSigned: isSigned)
    let middles = zip(values, values.dropFirst()).map { ($0 + $1) / 2 }
    self.middles = middles
    first = (0..<UInt32(1 << 16)).map { half in
      let value = Float(bitPattern: half << 16)
      var (low, high) = (0, middles.count)  // the first middle that the value is not above
      while low < high {
        let middle = (low + high) / 2
        if value > middles[middle] { low = middle + 1 } else { high = middle }
      }
      return UInt8(low)
    }
  }
}
