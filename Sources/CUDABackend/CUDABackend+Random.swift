import Tensors

extension CUDABackend {
  public func dropout(_ x: Tensor<Self>, _ probability: Double, _ key: RandomKey, _ identity: RowIdentity<Self>) -> Tensor<Self> {
    core.operation {
      requireIdentity(identity, x.rowCount)
      guard let mask = DropoutMask<Scalar>(probability) else { return x }
      let (y, ys) = fresh(x.shape)
      let blocks = (x.columnCount + 7) / 8  // of random numbers of a row
      let count = x.rowCount * blocks
      launch(
        "dropout", over: count, rows(x), ys, address(identity.samples), address(identity.positions), Int64(count), Int32(blocks),
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
      guard let mask = DropoutMask<Scalar>(probability) else { return x }
      let (y, ys) = fresh(x.shape)
      let blocks = (x.columnCount + 7) / 8  // of random numbers of a row
      let count = x.rowCount * blocks
      launch(
        "dropout_routed", over: count, rows(x), ys, address(identity.samples), address(identity.positions), address(routing.choice),
        address(routing.tokenOfRow), address(routing.slotOfRow), pairs(routing),
        Int64(count), Int32(blocks), Int32(x.columnCount), UInt32(truncatingIfNeeded: identity.step), key.bits, mask.threshold,
        mask.factor)
      return y
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
