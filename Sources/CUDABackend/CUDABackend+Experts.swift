import CCUDA
import Tensors

extension CUDABackend {
  public func dispatch(_ x: Tensor<Self>, _ routing: Routing<Self>) -> Tensor<Self> {
    core.operation {
      requireShapes("dispatch", ("x", x.shape, Shape(routing.tokens, x.columnCount)))
      let (y, ys) = fresh(Shape(routing.rows, x.columnCount))
      launch(
        "dispatch", over: y.shape.count, rows(x), ys, address(routing.tokenOfRow), pairs(routing), Int64(y.shape.count),
        Int32(x.columnCount))
      return y
    }
  }

  public func combine(_ x: Tensor<Self>, weights: Tensor<Self>?, _ routing: Routing<Self>) -> Tensor<Self> {
    core.operation {
      requireRows("combine", x, weights, routing)
      let (y, ys) = fresh(Shape(routing.tokens, x.columnCount))
      launch(
        "combine", over: y.shape.count, rows(x), weights.map { address($0) } ?? 0, ys, address(routing.rowOfSlot), Int64(y.shape.count),
        Int32(x.columnCount), Int32(routing.slots))
      return y
    }
  }

  public func dispatchBlocks(_ x: Tensor<Self>, _ routing: Routing<Self>) -> Tensor<Self> {
    core.operation {
      guard routing.experts > 0, x.columnCount % routing.experts == 0 else {
        trap("dispatchBlocks: \(x.columnCount) columns are no blocks of \(routing.experts) experts")
      }
      let r = x.columnCount / routing.experts
      requireShapes("dispatchBlocks", ("x", x.shape, Shape(routing.tokens, r * routing.experts)))
      let (y, ys) = fresh(Shape(routing.rows, r))
      launch(
        "dispatch_blocks", over: y.shape.count, rows(x), ys, address(routing.slotOfRow), address(routing.choice), pairs(routing),
        Int64(y.shape.count), Int32(r), Int32(routing.slots))
      return y
    }
  }

  public func combineBlocks(_ x: Tensor<Self>, weights: Tensor<Self>?, _ routing: Routing<Self>) -> Tensor<Self> {
    core.operation {
      requireRows("combineBlocks", x, weights, routing)
      let r = x.columnCount
      let (y, ys) = fresh(Shape(routing.tokens, r * routing.experts))
      launch(
        "combine_blocks", over: y.shape.count, rows(x), weights.map { address($0) } ?? 0, ys, address(routing.rowOfSlot),
        address(routing.choice), Int64(y.shape.count), Int32(y.columnCount), Int32(r), Int32(routing.slots))
      return y
    }
  }

  /// Where the number of rows is that belong to somebody: the last offset.
  func pairs(_ routing: Routing<Self>) -> cuda_address { address(routing.offsets[routing.experts..<routing.experts + 1]) }
}
