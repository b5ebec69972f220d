import CCUDA
import Tensors

extension CUDABackend {
  /// The definitions', and what the blocks of the experts' stage leave for others to add.
  public var memoryUse: MemoryUse {
    let (size, blocks) = (MemoryLayout<Scalar>.size, core.expertBlocks)
    var use = MemoryUse(scalarBytes: size)
    let definition = use.scratch
    use.scratch = { operation in
      let grid = StageGrid<Scalar>(tokens: operation.tokens, width: operation.width, blocks: blocks)
      switch operation.kind {
      case .product, .addition: return definition(operation)
      case .hidden(let rank2): return [size * grid.parts(of: grid.tiles) * operation.rows * rank2]
      case .hiddenBackward(let rank1, let rank2, let rank3):
        let factorRows = operation.experts * (rank1 + rank2 + rank3)
        let groups = grid.groups(factorRows: factorRows).count
        return [size * grid.parts(of: groups) * operation.rows * (rank1 + rank3 + 1), size * groups * factorRows * operation.width]
      }
    }
    return use
  }

  public func expertHidden(_ hidden: ExpertHidden<Self>, _ routing: Routing<Self>) -> ExpertHidden<Self>.Result? {
    core.operation {
      let stage = ExpertStage(hidden, routing, on: self)
      let (v, vs) = fresh(hidden.a.base.shape)
      let parts = stage.grid.parts(of: stage.grid.tiles)
      let sums = empty(Shape(parts * routing.rows, stage.rank2))
      let t2 = hidden.a2.map { _ in empty(Shape(routing.rows, stage.rank2)) }
      launch(
        "expert_forward", blocks: stage.grid.tiles, by: parts, threads: 256, stage.base1, stage.base3, stage.one, stage.three,
        stage.a2, stage.plan, stage.mask, vs, rows(sums), Int64(routing.rows), stage.width, Int32(stage.rank1), Int32(stage.rank2),
        Int32(stage.rank3), stage.scale1, stage.scale3, stage.factor, stage.activation)
      join(sums, parts, [(t2, 1)], routing)
      return ExpertHidden.Result(v: v, t2: t2)
    }
  }

  public func expertHiddenBackward(_ q: Tensor<Self>, z: Tensor<Self>?, _ hidden: ExpertHidden<Self>, _ routing: Routing<Self>)
    -> ExpertHidden<Self>.Gradient?
  {
    core.operation {
      var stage = ExpertStage(hidden, routing, on: self)
      requireShapes("expertHiddenBackward", ("q", q.shape, hidden.a.base.shape))
      if let z, hidden.a2 != nil {
        requireShapes("expertHiddenBackward", ("z", z.shape, Shape(routing.rows, stage.rank2)))
      } else {
        stage.rank2 = 0
      }
      let two = ExpertBranch(t: z.map { rows($0) } ?? .none, b: stage.a2)
      let (da, das) = fresh(q.shape)
      let (dc, dcs) = fresh(q.shape)
      func result(_ sum: ExpertSum<Self>) -> Tensor<Self>? { sum.branch.map { empty($0.t.shape) } }
      let (dt1, dt3, dw) = (result(hidden.a), result(hidden.c), empty(Shape(routing.rows, 1)))
      let factorRows = routing.experts * (stage.rank1 + stage.rank2 + stage.rank3)
      let (groups, tilesOfGroup) = stage.grid.groups(factorRows: factorRows)
      let parts = stage.grid.parts(of: groups)
      let sums = empty(Shape(parts * routing.rows, stage.rank1 + stage.rank3 + 1))
      let outer = empty(Shape(groups * factorRows, q.columnCount))
      launch(
        "expert_backward", blocks: groups, by: parts, threads: 256, rows(q), stage.base1, stage.base3, stage.one, two, stage.three,
        stage.plan, stage.mask, das, dcs, rows(sums), rows(outer), Int64(routing.rows), Int32(tilesOfGroup * stage.grid.tileTokens),
        stage.width, Int32(stage.rank1), Int32(stage.rank2), Int32(stage.rank3), stage.scale1, stage.scale3, stage.factor,
        stage.activation)
      join(sums, parts, [(dt1, stage.scale1), (dt3, stage.scale3), (dw, 1)], routing)
      func gradient(_ parameter: Parameter<Self>?) -> DeviceRows { parameter.map { writable(&$0.gradient) } ?? .none }
      let (db1, da2, db3) = (gradient(hidden.a.branch?.b), gradient(hidden.a2), gradient(hidden.c.branch?.b))
      let count = factorRows * q.columnCount
      launch(
        "expert_add", over: count, rows(outer), db1, da2, db3, Int64(count), stage.width, Int32(routing.experts), Int32(stage.rank1),
        Int32(stage.rank2), Int32(stage.rank3), stage.scale1, stage.scale3, Int32(groups))
      withExtendedLifetime(outer) {}
      return ExpertHidden.Gradient(dw: dw.asVector, a: (da, dt1), c: (dc, dt3))
    }
  }

  /// Joins what each of `parts` blocks of columns has left of every row's sums: the columns of up to three results, with their factors.
  private func join(
    _ sums: Tensor<Self>, _ parts: Int, _ results: [(y: Tensor<Self>?, alpha: Scalar)], _ routing: Routing<Self>
  ) {
    func result(_ i: Int) -> ExpertResult<Scalar> {
      guard i < results.count, let y = results[i].y else { return ExpertResult(y: .none, width: 0, alpha: 0) }
      return ExpertResult(y: rows(y), width: Int32(y.columnCount), alpha: results[i].alpha)
    }
    let count = routing.rows * sums.columnCount
    launch(
      "expert_join", over: count, rows(sums), result(0), result(1), result(2), pairs(routing), Int64(count), Int32(sums.columnCount),
      Int32(routing.rows), Int32(parts))
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
  let grid: StageGrid<B.Scalar>

  init(_ hidden: ExpertHidden<B>, _ routing: Routing<B>, on backend: B) {
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
    grid = StageGrid(tokens: n, width: f, blocks: backend.core.expertBlocks)
  }
}

/// How the stage is cut into blocks.
private struct StageGrid<Scalar: CUDAScalar> {
  /// Tokens of a tile, `expert_tokens` of expert.cu.
  let tileTokens = Scalar.isDouble ? 16 : 64
  /// Tiles of tokens.
  let tiles: Int
  /// Tiles of 64 columns.
  private let columnTiles: Int
  /// Blocks that are wanted.
  private let blocks: Int

  init(tokens: Int, width: Int, blocks: Int) {
    tiles = (tokens + tileTokens - 1) / tileTokens
    columnTiles = (width + 63) / 64
    self.blocks = blocks
  }

  /// How many blocks share the columns of each of `groups` of tokens: about as many as keep a device busy, for each leaves a part of
  /// every sum over F.
  func parts(of groups: Int) -> Int {
    let walk = max(1, (columnTiles * groups + blocks / 2) / blocks)  // tiles of columns of one block
    return (columnTiles + walk - 1) / walk
  }

  /// How many groups of tokens have blocks of their own in backward, and tiles of each: about as many as keep a device busy, or one for
  /// 1024 tokens (for four times the experts' ranks, `factorRows`, where that is more), for each leaves a part of every sum over an
  /// expert's rows. These are as large as the factors.
  func groups(factorRows: Int) -> (count: Int, tiles: Int) {
    let wanted = max((blocks + columnTiles / 2) / max(1, columnTiles), tiles * tileTokens / max(1024, 4 * factorRows), 1)
    let size = (tiles + wanted - 1) / wanted
    return (size == 0 ? 0 : (tiles + size - 1) / size, size)
  }
}
