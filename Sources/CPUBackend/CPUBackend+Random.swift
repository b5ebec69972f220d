import Platform
import Tensors

/// Random words that a thread forms at a time; they stay in its first-level cache.
private let tile = 512

extension CPUBackend {
  /// The counter of block b is (b mod 2³², b / 2³², 0, 0). With numbers a₀ … a₃, all in Double and then rounded to `Scalar`:
  ///
  ///     uniform   bound · (2 ⌊a_i / 2⁸⌋ / 2²⁴ − 1)                             24 bits, so that rounding never reaches +bound
  ///     normal    deviation · √(−2 ln u) · (cos 2πv, sin 2πv)                  Box & Muller 1958
  ///               u = (a₀ + 1)/2³², v = a₁/2³² for elements 0 and 1; a₂, a₃ for elements 2 and 3
  public func random(_ shape: Shape, _ distribution: Distribution, _ key: RandomKey) -> Tensor<Self> {
    core.timed("random") {
      let (y, ys) = fresh(shape)
      let (y0, count) = (ys.base, shape.count)
      let philox = PhiloxVector(key)
      forRanges(count, cost: 20, unit: tile) { elements in
        withUnsafeTemporaryAllocation(of: UInt32.self, capacity: tile) { buffer in
          guard let numbers = buffer.baseAddress else { return }
          var start = elements.lowerBound
          while start < elements.upperBound {
            let count = min(tile, elements.upperBound - start)
            for block in stride(from: 0, to: (count + 3) / 4, by: PhiloxVector.blocks) {
              let first = start / 4 + block  // a multiple of 16, so that no lane carries into the upper half
              let counter = SIMD4(UInt32(truncatingIfNeeded: first), UInt32(truncatingIfNeeded: first >> 32), 0, 0)
              philox.write(from: counter, to: numbers + 4 * block)
            }
            switch distribution {
            case .uniform(let bound):
              for j in 0..<count { y0[start + j] = Scalar(bound * (Double(Int32(numbers[j] >> 8)) * 0x1p-23 - 1)) }
            case .normal(let deviation):
              for j in stride(from: 0, to: count, by: 2) {
                let radius = deviation * (-2 * Double.log((Double(numbers[j]) + 1) * 0x1p-32)).squareRoot()
                let angle = 2 * Double.pi * (Double(numbers[j + 1]) * 0x1p-32)
                y0[start + j] = Scalar(radius * Double.cos(angle))
                if j + 1 < count { y0[start + j + 1] = Scalar(radius * Double.sin(angle)) }
              }
            }
            start += count
          }
        }
      }
      return y
    }
  }
}
