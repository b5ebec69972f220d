import Tensors

/// Numbers that a thread forms at a time; they stay in its first-level cache.
private let tile = 512

extension CPUBackend {
  /// m ⊙ x with the mask m of `key`: 1/(1−p) with probability 1−p, else 0. Forward and backward alike.
  ///
  /// Element j of row n is kept when number j % 4 of Philox block (step, sample_n, position_n, j / 4) is ≥ p·2³².
  /// With p = 0 the result is x itself. What is dropped is 0 even if it was NaN.
  public func dropout(_ x: Tensor<Self>, _ probability: Double, _ key: RandomKey, _ identity: RowIdentity<Self>) -> Tensor<Self> {
    let watch = core.watch("dropout")
    defer { watch.stop() }
    let n = x.rowCount
    guard identity.samples.count == n, identity.positions.count == n else {
      trap("dropout: \(identity.samples.count) samples and \(identity.positions.count) positions for x \(x.shape)")
    }
    let philox = PhiloxVector(key)
    return masked(x, probability, identity) { row in (philox, row) }
  }

  /// `dropout` for rows ordered by expert: row m is that of its token under the key of its expert: x (M,W), keys (E).
  public func dropout(
    _ x: Tensor<Self>, _ probability: Double, _ keys: [RandomKey], _ identity: RowIdentity<Self>, _ routing: Routing<Self>
  ) -> Tensor<Self> {
    let watch = core.watch("dropout")
    defer { watch.stop() }
    requireShapes("dropout", ("x", x.shape, Shape(routing.rows, x.columnCount)))
    guard keys.count == routing.experts else { trap("dropout: \(keys.count) keys for \(routing.experts) experts") }
    guard identity.samples.count == routing.tokens, identity.positions.count == routing.tokens else {
      trap("dropout: \(identity.samples.count) samples and \(identity.positions.count) positions for \(routing.tokens) tokens")
    }
    let (token, choice) = (routing.tokenOfRow.storage.pointer, routing.choiceOfRow.storage.pointer)
    let expert = routing.choice.storage.pointer
    return keys.withUnsafeBufferPointer { keys in
      masked(x, probability, identity) { row in (PhiloxVector(keys[Int(expert[Int(choice[row])])]), Int(token[row])) }
    }
  }

  /// The masked rows of x; `stream` gives a row's generator and the token whose numbers it has.
  @inline(__always)
  private func masked(
    _ x: Tensor<Self>, _ probability: Double, _ identity: RowIdentity<Self>, _ stream: (Int) -> (PhiloxVector, Int)
  ) -> Tensor<Self> {
    guard probability >= 0, probability < 1 else { trap("dropout: probability \(probability), expected 0 ..< 1") }
    if probability == 0 { return x }
    let threshold = UInt32(exactly: (probability * 0x1p32).rounded(.up)) ?? .max
    let scale = Scalar(1 / (1 - probability))
    let (y, ys) = fresh(x.shape)
    let xs = rows(x)
    let (sample, position) = (identity.samples.storage.pointer, identity.positions.storage.pointer)
    let step = UInt32(truncatingIfNeeded: identity.step)
    forRanges(xs.count, cost: 6 * xs.width) { rows in
      withUnsafeTemporaryAllocation(of: UInt32.self, capacity: tile) { buffer in
        guard let numbers = buffer.baseAddress else { return }
        for n in rows {
          let (philox, token) = stream(n)
          var start = 0
          while start < xs.width {
            let count = min(tile, xs.width - start)
            for block in stride(from: 0, to: (count + 3) / 4, by: 8) {
              philox.write(
                (
                  PhiloxVector.Words(repeating: step), PhiloxVector.Words(repeating: UInt32(bitPattern: sample[token])),
                  PhiloxVector.Words(repeating: UInt32(bitPattern: position[token])),
                  PhiloxVector.lanes &+ UInt32(truncatingIfNeeded: start / 4 + block)
                ), to: numbers + 4 * block)
            }
            let (x, y) = (xs[n] + start, ys[n] + start)
            for j in 0..<count { y[j] = numbers[j] >= threshold ? scale * x[j] : 0 }
            start += count
          }
        }
      }
    }
    return y
  }

  /// Random numbers: element i of the row-major result is formed from number i % 4 of Philox block i / 4 under `key`.
  ///
  /// The counter of block b is (b mod 2³², b / 2³², 0, 0). With numbers a₀ … a₃, all in Double and then rounded to `Scalar`:
  ///
  ///     uniform   bound · (2 ⌊a_i / 2⁸⌋ / 2²⁴ − 1)                             24 bits, so that rounding never reaches +bound
  ///     normal    deviation · √(−2 ln u) · (cos 2πv, sin 2πv)                  Box & Muller 1958
  ///               u = (a₀ + 1)/2³², v = a₁/2³² for elements 0 and 1; a₂, a₃ for elements 2 and 3
  ///
  /// Both precisions therefore draw the same numbers, up to rounding.
  public func random(_ shape: Shape, _ distribution: Distribution, _ key: RandomKey) -> Tensor<Self> {
    let watch = core.watch("random")
    defer { watch.stop() }
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
              let radius = deviation * (-2 * CLibrary.log((Double(numbers[j]) + 1) * 0x1p-32)).squareRoot()
              let angle = 2 * Double.pi * (Double(numbers[j + 1]) * 0x1p-32)
              y0[start + j] = Scalar(radius * CLibrary.cos(angle))
              if j + 1 < count { y0[start + j + 1] = Scalar(radius * CLibrary.sin(angle)) }
            }
          }
          start += count
        }
      }
    }
    return y
  }
}
