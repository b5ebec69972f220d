import Tensors

extension CUDABackend {
  public func dropout(_ x: Tensor<Self>, _ probability: Double, _ key: RandomKey, _ identity: RowIdentity<Self>) -> Tensor<Self> {
    core.operation {
      requireIdentity(identity, x.rowCount)
      guard let mask = DropoutMask<Scalar>(probability, width: x.columnCount) else { return x }
      let (y, ys) = fresh(x.shape)
      let count = x.rowCount * mask.blocks
      launch(
        "dropout", over: count, rows(x), ys, address(identity.samples), address(identity.positions), Int64(count), Int32(mask.blocks),
        Int32(x.columnCount), UInt32(truncatingIfNeeded: identity.step), key.bits, mask.threshold, mask.factor)
      return y
    }
  }

  public func dropout(
    _ x: Tensor<Self>, _ probability: Double, _ key: RandomKey, _ identity: RowIdentity<Self>, _ routing: Routing<Self>
  ) -> Tensor<Self> {
    core.operation {
      requireShapes("dropout", ("x", x.shape, Shape(routing.rows, x.columnCount)))
      requireIdentity(identity, routing.tokens)
      guard let mask = DropoutMask<Scalar>(probability, width: x.columnCount) else { return x }
      let (y, ys) = fresh(x.shape)
      let count = x.rowCount * mask.blocks
      launch(
        "dropout_routed", over: count, rows(x), ys, address(identity.samples), address(identity.positions), address(routing.choice),
        address(routing.tokenOfRow), address(routing.slotOfRow), address(routing.offsets[routing.experts..<routing.experts + 1]),
        Int64(count), Int32(mask.blocks), Int32(x.columnCount), UInt32(truncatingIfNeeded: identity.step), key.bits, mask.threshold,
        mask.factor)
      return y
    }
  }

  private func requireIdentity(_ identity: RowIdentity<Self>, _ rows: Int) {
    guard identity.samples.count == rows, identity.positions.count == rows else {
      trap("dropout: \(identity.samples.count) samples and \(identity.positions.count) positions for \(rows) rows")
    }
  }

  /// See the CPU's for the numbers' definition.
  public func random(_ shape: Shape, _ distribution: Distribution, _ key: RandomKey) -> Tensor<Self> {
    core.operation {
      let y = empty(shape)
      let (size, isNormal): (Double, Int32) =
        switch distribution {
        case .uniform(let bound): (bound, 0)
        case .normal(let deviation): (deviation, 1)
        }
      launch("random_numbers", over: (shape.count + 3) / 4, address(y), Int64(shape.count), size, isNormal, key.bits)
      return y
    }
  }
}

/// What a dropout kernel is told about its mask.
struct DropoutMask<Scalar: BinaryFloatingPoint> {
  /// A number below it drops its element.
  let threshold: UInt32
  /// What is kept is multiplied with it.
  let factor: Scalar
  /// Blocks of random numbers of a row: one for 8 columns.
  let blocks: Int

  /// Nil if nothing is dropped.
  init?(_ probability: Double, width: Int) {
    guard probability >= 0, probability < 1 else { trap("dropout: probability \(probability), expected 0 ..< 1") }
    threshold = UInt32((probability * 0x1p16).rounded())
    if threshold == 0 { return nil }
    factor = Scalar(1 / (1 - Double(threshold) * 0x1p-16))
    blocks = (width + 7) / 8
  }
}
