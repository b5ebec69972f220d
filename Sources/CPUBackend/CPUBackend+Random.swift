import Platform
import Tensors

/// Words that a thread forms at a time; they stay in its first-level cache.
private let tile = 512

extension CPUBackend {
  public func dropout(_ x: Tensor<Self>, _ probability: Double, _ key: RandomKey, _ identity: RowIdentity<Self>) -> Tensor<Self> {
    core.timed("dropout") {
      requireIdentity(identity, x.rowCount)
      let philox = PhiloxVector(key)
      return masked(x, probability, identity) { row in (philox, row) }
    }
  }

  public func dropout(
    _ x: Tensor<Self>, _ probability: Double, _ key: RandomKey, _ identity: RowIdentity<Self>, _ routing: Routing<Self>
  ) -> Tensor<Self> {
    core.timed("dropout") {
      requireShapes("dropout", ("x", x.shape, Shape(routing.rows, x.columnCount)))
      requireIdentity(identity, routing.tokens)
      let (token, slot) = (integers(routing.tokenOfRow), integers(routing.slotOfRow))
      let (expert, pairs) = (integers(routing.choice), pairs(routing))
      let generators = (0..<routing.experts).map { PhiloxVector(key.derived($0)) }
      return generators.withUnsafeBufferPointer { generators in
        masked(x, probability, identity) { row in row < pairs ? (generators[Int(expert[Int(slot[row])])], Int(token[row])) : nil }
      }
    }
  }

  /// The masked rows of x; `stream` gives a row's generator and the token whose numbers it has, nil for a row that is nobody's.
  @inline(__always)
  private func masked(
    _ x: Tensor<Self>, _ probability: Double, _ identity: RowIdentity<Self>, _ stream: (Int) -> (PhiloxVector, Int)?
  ) -> Tensor<Self> {
    guard let mask = DropoutMask<Scalar>(probability) else { return x }
    let (threshold, scale) = (mask.threshold, mask.factor)
    let (y, ys) = fresh(x.shape)
    let xs = rows(x)
    let (sample, position) = (integers(identity.samples), integers(identity.positions))
    let step = UInt32(truncatingIfNeeded: identity.step)
    forRanges(xs.count, cost: 4 * xs.width) { rows in
      withUnsafeTemporaryAllocation(of: UInt32.self, capacity: tile) { buffer in
        guard let words = buffer.baseAddress else { return }
        // In memory the halves of little-endian words stand in the order of the definition: the lower one first.
        let numbers = UnsafeRawPointer(words).assumingMemoryBound(to: UInt16.self)
        for n in rows {
          guard let (philox, token) = stream(n) else {
            ys[n].update(repeating: 0, count: xs.width)
            continue
          }
          var start = 0
          while start < xs.width {
            let count = min(2 * tile, xs.width - start)
            for block in stride(from: 0, to: (count + 7) / 8, by: 8) {
              philox.write(
                (
                  PhiloxVector.Words(repeating: step), PhiloxVector.Words(repeating: UInt32(bitPattern: sample[token])),
                  PhiloxVector.Words(repeating: UInt32(bitPattern: position[token])),
                  PhiloxVector.lanes &+ UInt32(truncatingIfNeeded: start / 8 + block)
                ), to: words + 4 * block)
            }
            let (x, y) = (xs[n] + start, ys[n] + start)
            for j in 0..<count { y[j] = UInt32(numbers[j]) >= threshold ? scale * x[j] : 0 }
            start += count
          }
        }
      }
    }
    return y
  }

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
            for block in stride(from: 0, to: (count + 3) / 4, by: 8) {
              let first = start / 4 + block  // a multiple of 8, so that no lane carries into the upper half
              philox.write(
                (
                  PhiloxVector.lanes &+ UInt32(truncatingIfNeeded: first),
                  PhiloxVector.Words(repeating: UInt32(truncatingIfNeeded: first >> 32)), .zero, .zero
                ), to: numbers + 4 * block)
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
