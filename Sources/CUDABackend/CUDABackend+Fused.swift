import CCUDA
import Tensors

extension CUDABackend {
  /// Nil for ranks above 64, whose sums a block cannot hold.
  public func expertHidden(_ hidden: ExpertHidden<Self>, _ routing: Routing<Self>) -> ExpertHidden<Self>.Result? {
    guard let stage = ExpertStage(hidden, routing, on: self) else { return nil }
    return core.operation {
      let (v, vs) = fresh(hidden.a.base.shape)
      let part = empty(Shape(stage.parts * routing.rows, stage.rank2))
      let t2 = hidden.a2.map { _ in empty(Shape(routing.rows, stage.rank2)) }
      launch(
        "expert_forward", blocks: stage.tiles, by: stage.parts, threads: 256, stage.base1, stage.base3, stage.one, stage.three,
        stage.a2, stage.plan, stage.mask, vs, rows(part), Int64(routing.rows), stage.width, Int32(stage.rank1), Int32(stage.rank2),
        Int32(stage.rank3), stage.scale1, stage.scale3, stage.factor, stage.activation)
      join(part, [(t2, 1)], stage, routing)
      return ExpertHidden.Result(v: v, t2: t2)
    }
  }

  public func expertHiddenBackward(_ q: Tensor<Self>, z: Tensor<Self>?, _ hidden: ExpertHidden<Self>, _ routing: Routing<Self>)
    -> ExpertHidden<Self>.Gradient?
  {
    guard var stage = ExpertStage(hidden, routing, on: self) else { return nil }
    return core.operation {
      requireShapes("expertHiddenBackward", ("q", q.shape, hidden.a.base.shape))
      if let z, hidden.a2 != nil {
        requireShapes("expertHiddenBackward", ("z", z.shape, Shape(routing.rows, stage.rank2)))
      } else {
        stage.rank2 = 0
      }
      let two = ExpertBranch(t: z.map { rows($0) } ?? .none, b: stage.a2)
      let (da, das) = fresh(q.shape)
      let (dc, dcs) = fresh(q.shape)
      func sums(_ sum: ExpertSum<Self>) -> Tensor<Self>? { sum.branch.map { empty($0.t.shape) } }
      let (dt1, dt3, dw) = (sums(hidden.a), sums(hidden.c), empty(Shape(routing.rows, 1)))
      let part = empty(Shape(stage.parts * routing.rows, stage.rank1 + stage.rank3 + 1))
      launch(
        "expert_backward", blocks: stage.tiles, by: stage.parts, threads: 256, rows(q), stage.base1, stage.base3, stage.one, two,
        stage.three, stage.plan, stage.mask, das, dcs, rows(part), Int64(routing.rows), stage.width, Int32(stage.rank1),
        Int32(stage.rank2), Int32(stage.rank3), stage.scale1, stage.scale3, stage.factor, stage.activation)
      join(part, [(dt1, stage.scale1), (dt3, stage.scale3), (dw, 1)], stage, routing)
      let largest = max(stage.rank1, stage.rank2, stage.rank3)
      if largest > 0 {
        func gradient(_ parameter: Parameter<Self>?) -> DeviceRows { parameter.map { writable(&$0.gradient) } ?? .none }
        let db1 = gradient(hidden.a.branch?.b)
        let da2 = stage.rank2 > 0 ? gradient(hidden.a2) : .none
        let db3 = gradient(hidden.c.branch?.b)
        launch(
          "expert_outer_\(largest <= 16 ? 16 : largest <= 32 ? 32 : 64)", blocks: routing.experts, by: stage.columnBlocks, threads: 256,
          rows(q), stage.base1, stage.base3, stage.one, two, stage.three, stage.plan, stage.mask, db1, da2, db3, stage.width,
          Int32(stage.rank1), Int32(stage.rank2), Int32(stage.rank3), stage.scale1, stage.scale3, stage.factor, stage.activation)
      }
      return ExpertHidden.Gradient(dw: dw.asVector, a: (da, dt1), c: (dc, dt3))
    }
  }

  /// Sums up what `stage.parts` blocks of columns have left of each row: the columns of up to three results, each with its factor.
  private func join(
    _ part: Tensor<Self>, _ results: [(y: Tensor<Self>?, alpha: Scalar)], _ stage: ExpertStage<Self>, _ routing: Routing<Self>
  ) {
    func result(_ i: Int) -> ExpertResult<Scalar> {
      guard i < results.count, let y = results[i].y else { return ExpertResult(y: .none, width: 0, alpha: 0) }
      return ExpertResult(y: rows(y), width: Int32(y.columnCount), alpha: results[i].alpha)
    }
    let count = routing.rows * part.columnCount
    launch(
      "expert_join", over: count, rows(part), result(0), result(1), result(2), pairs(routing), Int64(count), Int32(part.columnCount),
      Int32(routing.rows), Int32(stage.parts))
  }
}

/// One of the experts' branches as kernels see it; `struct expert_branch` of expert.cu.
struct ExpertBranch: BitwiseCopyable {
  let t: DeviceRows
  let b: DeviceRows
}

/// `struct expert_plan` of expert.cu.
struct ExpertPlan: BitwiseCopyable {
  let offsets: cuda_address
  let tokenOfRow: cuda_address
  let weights: cuda_address
  let experts: Int32
  let tokens: Int32
}

/// `struct expert_result` of expert.cu.
struct ExpertResult<Scalar: CUDAScalar>: BitwiseCopyable {
  let y: DeviceRows
  let width: Int32
  let alpha: Scalar
}

/// `struct expert_mask` of expert.cu.
struct ExpertMask: BitwiseCopyable {
  let samples: cuda_address
  let positions: cuda_address
  let key: UInt64
  let step: UInt32
  let threshold: UInt32
}

/// What the kernels of the expert stage are told.
private struct ExpertStage<B: CUDABackend> {
  let base1: DeviceRows
  let base3: DeviceRows
  let one: ExpertBranch
  let three: ExpertBranch
  let a2: DeviceRows
  let rank1: Int
  var rank2: Int
  let rank3: Int
  let scale1: B.Scalar
  let scale3: B.Scalar
  let plan: ExpertPlan
  let mask: ExpertMask
  let factor: B.Scalar
  let activation: Int32
  let width: Int32
  /// Tiles of tokens, `expert_tokens` of expert.cu each.
  let tiles: Int
  /// Blocks of 64 columns.
  let columnBlocks: Int
  /// Blocks that share the columns of a tile; each leaves a part of every sum over F.
  let parts: Int

  /// Nil where a rank is above 64.
  init?(_ hidden: ExpertHidden<B>, _ routing: Routing<B>, on backend: B) {
    let (n, f) = (routing.tokens, hidden.a.base.columnCount)
    func branch(_ sum: ExpertSum<B>) -> (ExpertBranch, rank: Int, scale: B.Scalar) {
      requireShapes("expertHidden", ("a base", sum.base.shape, Shape(n, f)))
      guard let (t, b, scale) = sum.branch else { return (ExpertBranch(t: .none, b: .none), 0, 0) }
      let rank = t.columnCount
      requireShapes("expertHidden", ("t", t.shape, Shape(routing.rows, rank)), ("B", b.shape, Shape(f, routing.experts * rank)))
      return (ExpertBranch(t: backend.rows(t), b: backend.rows(b.value)), rank, B.Scalar(scale))
    }
    (one, rank1, scale1) = branch(hidden.a)
    (three, rank3, scale3) = branch(hidden.c)
    rank2 = hidden.a2.map { $0.shape.rows / routing.experts } ?? 0
    if let a2 = hidden.a2 { requireShapes("expertHidden", ("A2", a2.shape, Shape(routing.experts * rank2, f))) }
    if max(rank1, rank2, rank3) > 64 { return nil }
    (base1, base3) = (backend.rows(hidden.a.base), backend.rows(hidden.c.base))
    a2 = hidden.a2.map { backend.rows($0.value) } ?? .none
    plan = ExpertPlan(
      offsets: backend.address(routing.offsets), tokenOfRow: backend.address(routing.tokenOfRow),
      weights: backend.address(routing.weights), experts: Int32(routing.experts), tokens: Int32(n))
    let mask = hidden.mask.flatMap { DropoutMask<B.Scalar>($0.probability) }
    if let mask, let (_, key, rows) = hidden.mask {
      self.mask = ExpertMask(
        samples: backend.address(rows.samples), positions: backend.address(rows.positions), key: key.bits,
        step: UInt32(truncatingIfNeeded: rows.step), threshold: mask.threshold)
    } else {
      self.mask = ExpertMask(samples: 0, positions: 0, key: 0, step: 0, threshold: 0)
    }
    factor = mask?.factor ?? 1
    activation = hidden.activation.number
    width = Int32(f)
    let tokens = B.Scalar.isDouble ? 16 : 64
    tiles = (n + tokens - 1) / tokens
    columnBlocks = (f + 63) / 64
    parts = min(columnBlocks, max(1, backend.core.expertBlocks / max(1, tiles)))
  }
}
