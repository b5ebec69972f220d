import Tensors

// Masks are formed once and kept as bits, an eighth of a byte an element, until their key is asked for other rows: backward, which
// asks for those of forward again, then draws no numbers.

extension CPUBackend {
  public func dropout(_ x: Tensor<Self>, _ probability: Double, _ key: RandomKey, _ identity: RowIdentity<Self>) -> Tensor<Self> {
    core.timed("dropout") {
      requireIdentity(identity, x.rowCount)
      return masked(x, dropoutMask(probability, key, identity, nil, columns: x.columnCount), pairs: x.rowCount)
    }
  }

  public func dropout(
    _ x: Tensor<Self>, _ probability: Double, _ key: RandomKey, _ identity: RowIdentity<Self>, _ routing: Routing<Self>
  ) -> Tensor<Self> {
    core.timed("dropout") {
      requireShapes("dropout", ("x", x.shape, Shape(routing.rows, x.columnCount)))
      requireIdentity(identity, routing.tokens)
      return masked(x, dropoutMask(probability, key, identity, routing, columns: x.columnCount), pairs: pairs(routing))
    }
  }

  /// m ⊙ x; rows from `pairs` on are nobody's and become zero.
  private func masked(_ x: Tensor<Self>, _ mask: MaskBits<Scalar>?, pairs: Int) -> Tensor<Self> {
    guard let mask else { return x }
    let (y, ys) = fresh(x.shape)
    let xs = rows(x)
    forRanges(xs.count, cost: 2 * xs.width) { rows in
      for n in rows {
        let (x, y, mask) = (xs[n], ys[n], mask.row(n))
        if n < pairs {
          for j in Scalar.lanes(0..<xs.width) { y[j] = mask.of(x[j], j) }
        } else {
          y.update(repeating: 0, count: xs.width)
        }
      }
    }
    return y
  }

  /// The mask of tokens, or of the rows of a routing; nil if nothing is dropped.
  func dropoutMask(_ probability: Double, _ key: RandomKey, _ identity: RowIdentity<Self>, _ routing: Routing<Self>?, columns: Int)
    -> MaskBits<Scalar>?
  {
    guard let mask = DropoutMask<Scalar>(probability) else { return nil }
    let origin = MaskOrigin(
      samples: identity.samples.storage, positions: identity.positions.storage, choice: routing?.choice.storage,
      numbers: [
        identity.samples.offset, identity.positions.offset, identity.step, routing?.choice.offset ?? 0,
        routing?.rows ?? identity.samples.count,
        columns, Int(mask.threshold),
      ])
    if let kept = core.masks[key], kept.origin == origin { return MaskBits(kept.bits.pointer, columns, mask.factor) }
    core.masks[key] = nil  // back to the pool before another is taken
    let buffer: Buffer<UInt8> = core.pool.buffer(origin.rows * MaskBits<Scalar>.rowBytes(columns))
    core.masks[key] = KeptMask(origin: origin, bits: buffer)
    let bits = MaskBits(buffer.pointer, columns, mask.factor)
    let (sample, position) = (integers(identity.samples), integers(identity.positions))
    let step = UInt32(truncatingIfNeeded: identity.step)
    func form(_ count: Int, _ stream: (_ row: Int) -> (PhiloxVector, token: Int)) {
      forRanges(count, cost: 2 * columns) { rows in
        for n in rows {
          let (philox, token) = stream(n)
          philox.compare(
            from: SIMD4(step, UInt32(bitPattern: sample[token]), UInt32(bitPattern: position[token]), 0), blocks: (columns + 7) / 8,
            mask.threshold, to: bits[n])
        }
      }
    }
    if let routing {
      let (token, slot, expert) = (integers(routing.tokenOfRow), integers(routing.slotOfRow), integers(routing.choice))
      let generators = (0..<routing.experts).map { PhiloxVector(key.derived($0)) }
      form(pairs(routing)) { (generators[Int(expert[Int(slot[$0])])], Int(token[$0])) }
    } else {
      let philox = PhiloxVector(key)
      form(identity.samples.count) { (philox, $0) }
    }
    return bits
  }
}

/// The rows of a dropout mask that the backend keeps: bit j of byte b of a row is element 8 b + j, 1 where it is kept.
struct MaskBits<Scalar: CPUScalar> {
  private let base: UnsafeMutablePointer<UInt8>
  private let stride: Int
  private let factor: Scalar

  init(_ base: UnsafeMutablePointer<UInt8>, _ columns: Int, _ factor: Scalar) {
    (self.base, stride, self.factor) = (base, Self.rowBytes(columns), factor)
  }

  /// Room for whole sixteens of bytes, as they are formed.
  static func rowBytes(_ columns: Int) -> Int { (columns + 127) / 128 * 16 }

  subscript(n: Int) -> UnsafeMutablePointer<UInt8> { base + n * stride }

  /// Row n from a column on that is a multiple of 8.
  @inline(__always)
  func row(_ n: Int, from column: Int = 0) -> MaskRow<Scalar> { MaskRow(bits: self[n] + column / 8, factor: factor) }
}

/// One row of a mask, or what follows in it from some column on.
struct MaskRow<Scalar: CPUScalar> {
  let bits: UnsafeMutablePointer<UInt8>
  /// What an element that is kept is multiplied with.
  let factor: Scalar

  /// m ⊙ x.
  @inline(__always)
  func of(_ x: Scalar.Vector, _ lanes: Lanes) -> Scalar.Vector { Scalar.masked(x, bits, lanes, factor) }
}

/// A mask that was formed.
struct KeptMask {
  let origin: MaskOrigin
  let bits: Buffer<UInt8>
}

/// What a mask was formed of beside its key. It holds the integers, so that no others take their place.
struct MaskOrigin: Equatable {
  let samples, positions: Buffer<Int32>
  let choice: Buffer<Int32>?
  /// Where these begin, the step, the rows, the columns and the threshold.
  let numbers: [Int]

  var rows: Int { numbers[4] }

  static func == (a: Self, b: Self) -> Bool {
    a.samples === b.samples && a.positions === b.positions && a.choice === b.choice && a.numbers == b.numbers
  }
}
