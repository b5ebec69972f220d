import Tensors

// The experts' hidden rows in one pass. A block of columns of F is one part of the work, and in it the rows of an expert are taken in
// chunks that stay in a core's second-level cache with all that is formed of them:
//
//     a, c ← base + s t Bᵀ     h = act(a) ⊙ c     g = m ⊙ h     k = z A2     and their gradients        (rows of the chunk, columns of the block)
//
// What is summed over rows (v, Σ da, Σ dc, dB1, dB3, dA2) has one writer, its block. What is summed over F (t2, dt1, dt3, dw) each
// block leaves apart, and these are added in the blocks' order. `LoRAExperts+SharedBase.swift` has the equations.

extension CPUFloat {
  /// In blocks of columns; CPUDouble, the oracle, runs the layer's lines instead.
  public func expertHidden(_ hidden: ExpertHidden<CPUFloat>, _ routing: Routing<CPUFloat>) -> ExpertHidden<CPUFloat>.Result? {
    core.timed("expertHidden") {
      switch hidden.activation {
      case .silu: forward(SiLU.self, hidden, routing)
      case .geluTanh: forward(GELU.self, hidden, routing)
      }
    }
  }

  /// Forms a, c, h and the mask again.
  public func expertHiddenBackward(
    _ q: Tensor<CPUFloat>, z: Tensor<CPUFloat>?, _ hidden: ExpertHidden<CPUFloat>, _ routing: Routing<CPUFloat>
  ) -> ExpertHidden<CPUFloat>.Gradient? {
    core.timed("expertHiddenBackward") {
      switch hidden.activation {
      case .silu: backward(SiLU.self, q, z, hidden, routing)
      case .geluTanh: backward(GELU.self, q, z, hidden, routing)
      }
    }
  }

  /// The common one, and for each thread tiles of a chunk's rows; of the hidden stage also every block's sums.
  public var memoryUse: MemoryUse {
    let threads = core.threads.threads
    var use = commonUse
    use.scratch = { operation in
      let blocks = ColumnBlocks(operation.width, threads: threads)
      func tiles(_ count: Int, _ columns: Int) -> Int { 4 * threads * ExpertRows.tileCount(count, columns: columns) }
      func hidden(sums: Int) -> [Int] { [4 * blocks.count * operation.rows * sums, tiles(HiddenStage.tiles, blocks.width)] }
      switch operation.kind {
      case .product: return [tiles(1, operation.width)]
      case .addition: return [tiles(1, blocks.width)]
      case .hidden(let rank2): return hidden(sums: rank2)
      case .hiddenBackward(let rank1, _, let rank3): return hidden(sums: 1 + rank1 + rank3)
      }
    }
    return use
  }

  @inline(__always)
  private func forward<U: GatedUnit>(_: U.Type, _ hidden: ExpertHidden<CPUFloat>, _ routing: Routing<CPUFloat>)
    -> ExpertHidden<CPUFloat>.Result
  {
    let stage = HiddenStage(hidden, routing, on: self)
    let (v, vs) = fresh(hidden.a.base.shape)
    let t2 = hidden.a2.map { _ in fresh(Shape(routing.rows, stage.rank2)) }
    let sums = stage.sums(width: stage.rank2)
    stage.forBlocks { block, tile in
      let vs = vs.columns(block.columns)
      let (base1, base3) = (stage.base1.columns(block.columns), stage.base3.columns(block.columns))
      for n in 0..<vs.count { vs[n].update(repeating: 0, count: vs.width) }
      for (expert, rows) in stage.plan.chunks {
        stage.formBranches(rows, of: expert, block, tile)
        for (i, row) in rows.enumerated() {
          if let next = stage.plan.token(after: row) {
            base1.prefetch(next)
            base3.prefetch(next)
            vs.prefetch(next)
          }
          let (a, c, m) = (tile.a[i], tile.c[i], stage.mask(row, block, tile))
          let (token, w) = (stage.plan.token(row), stage.weights[row])
          let (base1, base3, v) = (base1[token], base3[token], vs[token])
          for j in Float.lanes(0..<vs.width) {
            let h = U.value(base1[j] + a[j], Float.self) * (base3[j] + c[j])
            v[j] = v[j] + w * h
            a[j] = Float.masked(h, m[j])  // g
          }
        }
        guard let a2 = stage.a2 else { continue }
        multiplyHere(  // t2 = g A2ᵀ
          1, tile.a.matrix, a2.from(row: expert * stage.rank2, column: block.columns.lowerBound).transposed, 0,
          sums.matrix(block).from(row: rows.lowerBound), rows.count, stage.rank2, vs.width)
      }
    }
    if let t2 { stage.join(sums, columns: 0..<stage.rank2, into: t2.1) }
    return ExpertHidden.Result(v: v, t2: t2?.0)
  }

  @inline(__always)
  private func backward<U: GatedUnit>(
    _: U.Type, _ q: Tensor<CPUFloat>, _ z: Tensor<CPUFloat>?, _ hidden: ExpertHidden<CPUFloat>, _ routing: Routing<CPUFloat>
  ) -> ExpertHidden<CPUFloat>.Gradient {
    let stage = HiddenStage(hidden, routing, on: self)
    requireShapes("expertHiddenBackward", ("q", q.shape, hidden.a.base.shape))
    if let z { requireShapes("expertHiddenBackward", ("z", z.shape, Shape(routing.rows, stage.rank2))) }
    let (qs, zs) = (rows(q), z.map { rows($0).matrix })
    let (da, das) = fresh(q.shape)
    let (dc, dcs) = fresh(q.shape)
    let dw = fresh(Shape(routing.rows, 1))
    func gradient(_ parameter: Parameter<CPUFloat>?) -> Matrix<Float>? { parameter.map { writable(&$0.gradient).matrix } }
    let (db1, db3, da2) = (gradient(hidden.a.branch?.b), gradient(hidden.c.branch?.b), gradient(hidden.a2))
    let (rank1, rank2, rank3) = (stage.one?.rank ?? 0, stage.rank2, stage.three?.rank ?? 0)
    let sums = stage.sums(width: 1 + rank1 + rank3)  // dw, dt1, dt3
    stage.forBlocks { block, tile in
      let (qs, das, dcs) = (qs.columns(block.columns), das.columns(block.columns), dcs.columns(block.columns))
      let (base1, base3) = (stage.base1.columns(block.columns), stage.base3.columns(block.columns))
      let (first, width) = (block.columns.lowerBound, block.columns.count)
      for n in 0..<das.count {
        das[n].update(repeating: 0, count: width)
        dcs[n].update(repeating: 0, count: width)
      }
      for (expert, rows) in stage.plan.chunks {
        stage.formBranches(rows, of: expert, block, tile)
        let sum = sums.matrix(block).from(row: rows.lowerBound)
        if let zs, let a2 = stage.a2 {  // k = z A2
          let factor = a2.from(row: expert * rank2, column: first)
          multiplyHere(1, zs.from(row: rows.lowerBound), factor, 0, tile.k.matrix, rows.count, width, rank2)
        } else {
          for i in 0..<rows.count { tile.k[i].update(repeating: 0, count: width) }
        }
        for (i, row) in rows.enumerated() {
          if let next = stage.plan.token(after: row) {
            base1.prefetch(next)
            base3.prefetch(next)
            qs.prefetch(next)
            das.prefetch(next)
            dcs.prefetch(next)
          }
          let (a, c, k, m) = (tile.a[i], tile.c[i], tile.k[i], stage.mask(row, block, tile))
          let (token, w) = (stage.plan.token(row), stage.weights[row])
          let (base1, base3, q, da, dc) = (base1[token], base3[token], qs[token], das[token], dcs[token])
          var dw = Float.Vector()
          for j in Float.lanes(0..<width) {
            let (x, y, m) = (base1[j] + a[j], base3[j] + c[j], m[j])
            let (act, slope) = U.valueAndSlope(x, Float.self)
            let h = act * y
            let qk = q[j] + Float.masked(k[j], m)  // q_k = q + m ⊙ k
            dw += qk * h
            let dh = w * qk
            let (dx, dy) = (dh * y * slope, dh * act)
            (a[j], c[j], k[j]) = (dx, dy, w * Float.masked(h, m))  // da, dc, w g
            da[j] = da[j] + dx
            dc[j] = dc[j] + dy
          }
          sum.base[i * sum.stride] = dw.sum()
        }
        if let zs, let da2 {  // dA2 += zᵀ (w g)
          let factor = da2.from(row: expert * rank2, column: first)
          multiplyHere(1, zs.from(row: rows.lowerBound).transposed, tile.k.matrix, 1, factor, rank2, width, rows.count)
        }
        func add(_ d: Matrix<Float>, _ branch: HiddenStage.Branch?, _ db: Matrix<Float>?, _ dt: Matrix<Float>) {
          guard let branch, let db else { return }
          let (rank, column) = (branch.rank, expert * branch.rank)
          // dB += s daᵀ t, dt = s da B
          multiplyHere(
            branch.scale, d.transposed, branch.t.from(row: rows.lowerBound), 1, db.from(row: first, column: column), width, rank, rows.count
          )
          multiplyHere(branch.scale, d, branch.b.from(row: first, column: column), 0, dt, rows.count, rank, width)
        }
        add(tile.a.matrix, stage.one, db1, sum.from(column: 1))
        add(tile.c.matrix, stage.three, db3, sum.from(column: 1 + rank1))
      }
    }
    func joined(_ sum: ExpertSum<CPUFloat>, _ columns: Range<Int>) -> Tensor<CPUFloat>? {
      if sum.branch == nil { return nil }
      let (dt, dts) = fresh(Shape(routing.rows, columns.count))
      stage.join(sums, columns: columns, into: dts)
      return dt
    }
    stage.join(sums, columns: 0..<1, into: dw.1)
    return ExpertHidden.Gradient(
      dw: dw.0.asVector, a: (da, joined(hidden.a, 1..<1 + rank1)), c: (dc, joined(hidden.c, 1 + rank1..<1 + rank1 + rank3)))
  }
}

/// The stage as its loops read it.
private struct HiddenStage {
  /// Tiles of a thread.
  static let tiles = 4

  /// t (M,r), all experts' B (F,E·r) and s.
  struct Branch {
    let t: Matrix<Float>
    let b: Matrix<Float>
    let rank: Int
    let scale: Float
  }

  /// A block of columns.
  struct Block {
    let number: Int
    let columns: Range<Int>
  }

  /// What a thread forms of a chunk's rows in a block's columns.
  struct Tile {
    let a, c, k: Rows<Float>
    let m: UnsafeMutablePointer<Float>
  }

  /// Sums over a block's columns, of every row: (M,width) a block.
  struct Sums {
    let buffer: Buffer<Float>
    let rows, width: Int

    func matrix(_ block: Block) -> Matrix<Float> { Matrix(base: buffer.pointer + block.number * rows * width, stride: width) }
  }

  let backend: CPUFloat
  let experts, rows, width, rank2: Int
  let base1, base3: Rows<Float>
  let one, three: Branch?
  let a2: Matrix<Float>?
  let plan: ExpertRows
  let weights: UnsafeMutablePointer<Float>
  let masks: MaskBits<Float>?
  let blocks: ColumnBlocks

  init(_ hidden: ExpertHidden<CPUFloat>, _ routing: Routing<CPUFloat>, on backend: CPUFloat) {
    let f = hidden.a.base.columnCount
    func branch(_ sum: ExpertSum<CPUFloat>) -> Branch? {
      requireShapes("expertHidden", ("the base", sum.base.shape, Shape(routing.tokens, f)))
      guard let (t, b, scale) = sum.branch else { return nil }
      let rank = t.columnCount
      requireShapes("expertHidden", ("t", t.shape, Shape(routing.rows, rank)), ("B", b.shape, Shape(f, routing.experts * rank)))
      return Branch(t: backend.rows(t).matrix, b: backend.rows(b.value).matrix, rank: rank, scale: Float(scale))
    }
    (self.backend, experts, rows, width) = (backend, routing.experts, routing.rows, f)
    (one, three) = (branch(hidden.a), branch(hidden.c))
    (base1, base3) = (backend.rows(hidden.a.base), backend.rows(hidden.c.base))
    rank2 = hidden.a2.map { $0.shape.rows / routing.experts } ?? 0
    if let a2 = hidden.a2 { requireShapes("expertHidden", ("A2", a2.shape, Shape(routing.experts * rank2, f))) }
    a2 = hidden.a2.map { backend.rows($0.value).matrix }
    plan = ExpertRows(routing, on: backend)
    weights = backend.rows(routing.weights).base
    masks = hidden.mask.flatMap { mask in
      backend.requireIdentity(mask.rows, routing.tokens)
      return backend.dropoutMask(mask.probability, mask.key, mask.rows, routing, columns: f)
    }
    blocks = ColumnBlocks(f, threads: backend.core.threads.threads)
  }

  func sums(width: Int) -> Sums { Sums(buffer: backend.core.pool.buffer(blocks.count * rows * width), rows: rows, width: width) }

  /// Calls `body` for every block, with memory of the thread that runs it.
  @inline(__always)
  func forBlocks(_ body: (Block, Tile) -> Void) {
    plan.withTiles(Self.tiles, columns: blocks.width) { tiles in
      backend.forParts(blocks.count, work: 100 * rows * width) { number, thread in
        let (columns, chunk, memory) = (blocks[number], ExpertRows.chunk, tiles(thread))
        func matrix(_ i: Int) -> Rows<Float> { memory.rows(i * chunk..<(i + 1) * chunk).columns(0..<columns.count) }
        let tile = Tile(a: matrix(0), c: matrix(1), k: matrix(2), m: memory[3 * chunk])
        if masks == nil { tile.m.update(repeating: 1, count: blocks.width) }
        body(Block(number: number, columns: columns), tile)
      }
    }
  }

  /// What the branches add to the bases of a and c: s t Bᵀ.
  func formBranches(_ rows: Range<Int>, of expert: Int, _ block: Block, _ tile: Tile) {
    func form(_ branch: Branch?, _ y: Rows<Float>) {
      guard let branch else {
        for i in 0..<rows.count { y[i].update(repeating: 0, count: y.width) }
        return
      }
      let b = branch.b.from(row: block.columns.lowerBound, column: expert * branch.rank).transposed
      backend.multiplyHere(branch.scale, branch.t.from(row: rows.lowerBound), b, 0, y.matrix, rows.count, y.width, branch.rank)
    }
    form(one, tile.a)
    form(three, tile.c)
  }

  /// The row's mask in the block's columns; ones where nothing is dropped.
  @inline(__always)
  func mask(_ row: Int, _ block: Block, _ tile: Tile) -> UnsafeMutablePointer<Float> {
    masks?.write(row, block.columns, to: tile.m)
    return tile.m
  }

  /// y ← Σ of the blocks' sums.
  func join(_ sums: Sums, columns: Range<Int>, into y: Rows<Float>) {
    backend.forRanges(plan.count, cost: blocks.count * columns.count) { range in
      for m in range {
        let y = y[m]
        y.update(repeating: 0, count: columns.count)
        for block in 0..<blocks.count {
          let sum = sums.buffer.pointer + (block * rows + m) * sums.width + columns.lowerBound
          for j in Float.lanes(0..<columns.count) { y[j] = y[j] + sum[j] }
        }
      }
    }
  }
}
