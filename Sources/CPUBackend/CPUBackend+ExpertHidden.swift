import Tensors

// The experts' hidden rows in one pass. A block of columns of F is one part of the work. In it the pairs of some tokens are taken at a
// time, a strip of columns after the other, so that what is formed of them stays in a core's second-level cache:
//
//     a, c ← s t Bᵀ, k ← z A2                                          (pairs, strip)   an expert's rows at a time
//     a, c + base     h = act(a) ⊙ c     g = m ⊙ h     and gradients   (pairs, strip)   a token's pairs one after the other
//     dB1, dB3, dA2, dt1, dt3, t2 of these                                              an expert's rows at a time
//
// So the rows of tokens are read and written once, in their order. What is summed over rows (v, Σ da, Σ dc, dB1, dB3, dA2) has one
// writer, its block. What is summed over F (t2, dt1, dt3, dw) each block leaves apart, and these are added in the blocks' order.
// `LoRAExperts+SharedBase.swift` has the equations.

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

  /// The common one, and for each thread a tile; of the hidden stage also every block's sums, and each row's place in the tile.
  public var memoryUse: MemoryUse {
    let threads = core.threads.threads
    var use = commonUse
    use.scratch = { operation in
      let blocks = ColumnBlocks(operation.width, threads: threads)
      func tiles(_ columns: Int) -> Int { 4 * threads * ExpertRows.tileCount(columns: columns) }
      func hidden(sums: Int) -> [Int] {
        [
          4 * blocks.count * operation.rows * sums, 4 * operation.rows,
          4 * threads * PairTile.count(rows: operation.rows, experts: operation.experts),
        ]
      }
      switch operation.kind {
      case .product: return [tiles(operation.width)]
      case .addition: return [tiles(blocks.width)]
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
    stage.forStrips { strip, tile in
      stage.formBranches(strip, tile)
      let (base1, base3, vs) = (stage.base1.columns(strip.columns), stage.base3.columns(strip.columns), vs.columns(strip.columns))
      for token in strip.chunk.tokens {
        if token + 1 < vs.count {
          base1.prefetch(token + 1)
          base3.prefetch(token + 1)
          vs.prefetch(token + 1)
        }
        vs[token].update(repeating: 0, count: vs.width)
        stage.forPairs(of: token) { row, i in
          let line = ForwardLine(
            base1: base1[token], base3: base3[token], a: tile.a[i], c: tile.c[i], v: vs[token], w: stage.weights[row],
            mask: stage.mask(row, strip, tile))
          line.form(U.self, vs.width)
        }
      }
      guard let a2 = stage.a2 else { return }
      for run in strip.chunk.runs {  // t2 = g A2ᵀ
        let factor = a2.from(row: run.expert * stage.rank2, column: strip.columns.lowerBound).transposed
        let sum = sums.matrix(strip.block).from(row: run.rows.lowerBound)
        multiplyHere(1, tile.a.matrix.from(row: run.place), factor, strip.isFirst ? 0 : 1, sum, run.rows.count, stage.rank2, vs.width)
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
    let (rank1, rank2, rank3) = (stage.one?.rank ?? 0, stage.rank2, stage.three?.rank ?? 0)
    let sums = stage.sums(width: 1 + rank1 + rank3)  // dw, dt1, dt3
    let (da, das) = fresh(q.shape)
    let (dc, dcs) = fresh(q.shape)
    let dw = fresh(Shape(routing.rows, 1))
    // Last, so that for what these begin to take nothing is given back that this operation takes.
    func gradient(_ parameter: Parameter<CPUFloat>?) -> Matrix<Float>? { parameter.map { writable(&$0.gradient).matrix } }
    let (db1, db3, da2) = (gradient(hidden.a.branch?.b), gradient(hidden.c.branch?.b), gradient(hidden.a2))
    stage.forStrips { strip, tile in
      let (first, width, beta) = (strip.columns.lowerBound, strip.columns.count, Float(strip.isFirst ? 0 : 1))
      let (qs, das, dcs) = (qs.columns(strip.columns), das.columns(strip.columns), dcs.columns(strip.columns))
      let (base1, base3, sum) = (stage.base1.columns(strip.columns), stage.base3.columns(strip.columns), sums.matrix(strip.block))
      stage.formBranches(strip, tile)
      for run in strip.chunk.runs {  // k = z A2
        let k = tile.k.rows(run.place..<run.place + run.rows.count)
        if let zs, let a2 = stage.a2 {
          let factor = a2.from(row: run.expert * rank2, column: first)
          multiplyHere(1, zs.from(row: run.rows.lowerBound), factor, 0, k.matrix, k.count, width, rank2)
        } else {
          for i in 0..<k.count { k[i].update(repeating: 0, count: width) }
        }
      }
      for token in strip.chunk.tokens {
        if token + 1 < das.count {
          base1.prefetch(token + 1)
          base3.prefetch(token + 1)
          qs.prefetch(token + 1)
          das.prefetch(token + 1)
          dcs.prefetch(token + 1)
        }
        das[token].update(repeating: 0, count: width)
        dcs[token].update(repeating: 0, count: width)
        stage.forPairs(of: token) { row, i in
          var line = BackwardLine(
            base1: base1[token], base3: base3[token], q: qs[token], a: tile.a[i], c: tile.c[i], k: tile.k[i], da: das[token],
            dc: dcs[token], w: stage.weights[row], mask: stage.mask(row, strip, tile))
          line.form(U.self, width)
          let sumOfRow = sum.base + row * sum.stride
          sumOfRow.pointee = strip.isFirst ? line.dw.sum() : sumOfRow.pointee + line.dw.sum()
        }
      }
      for run in strip.chunk.runs {
        let (expert, row, count) = (run.expert, run.rows.lowerBound, run.rows.count)
        if let zs, let da2 {  // dA2 += zᵀ (w g)
          let wg = tile.k.matrix.from(row: run.place)
          multiplyHere(1, zs.from(row: row).transposed, wg, 1, da2.from(row: expert * rank2, column: first), rank2, width, count)
        }
        func add(_ tile: Rows<Float>, _ branch: HiddenStage.Branch?, _ db: Matrix<Float>?, _ dt: Matrix<Float>) {
          guard let branch, let db else { return }
          let (d, rank, column) = (tile.matrix.from(row: run.place), branch.rank, expert * branch.rank)
          // dB += s daᵀ t, dt = s da B
          multiplyHere(branch.scale, d.transposed, branch.t.from(row: row), 1, db.from(row: first, column: column), width, rank, count)
          multiplyHere(branch.scale, d, branch.b.from(row: first, column: column), beta, dt.from(row: row), count, rank, width)
        }
        add(tile.a, stage.one, db1, sum.from(column: 1))
        add(tile.c, stage.three, db3, sum.from(column: 1 + rank1))
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

/// A pair in the forward pass, in a strip's columns.
private struct ForwardLine {
  let base1, base3, a, c, v: UnsafeMutablePointer<Float>
  let w: Float
  let mask: MaskRow<Float>

  @inline(never)
  func form<U: GatedUnit>(_: U.Type, _ width: Int) {
    for j in Float.wholeLanes(width) { form(U.self, j) }
    if let j = Float.lastLanes(width) { form(U.self, j) }
  }

  @inline(__always)
  private func form<U: GatedUnit>(_: U.Type, _ j: Lanes) {
    let h = U.value(base1[j] + a[j], Float.self) * (base3[j] + c[j])
    v[j] = v[j] + w * h
    a[j] = mask.of(h, j)  // g
  }
}

/// A pair in the backward pass, in a strip's columns.
private struct BackwardLine {
  let base1, base3, q, a, c, k, da, dc: UnsafeMutablePointer<Float>
  let w: Float
  let mask: MaskRow<Float>
  var dw = Float.Vector()

  @inline(never)
  mutating func form<U: GatedUnit>(_: U.Type, _ width: Int) {
    for j in Float.wholeLanes(width) { form(U.self, j) }
    if let j = Float.lastLanes(width) { form(U.self, j) }
  }

  @inline(__always)
  private mutating func form<U: GatedUnit>(_: U.Type, _ j: Lanes) {
    let (x, y) = (base1[j] + a[j], base3[j] + c[j])
    let (act, slope) = U.valueAndSlope(x, Float.self)
    let h = act * y
    let qk = q[j] + mask.of(k[j], j)  // q_k = q + m ⊙ k
    dw += qk * h
    let dh = w * qk
    let (dx, dy) = (dh * y * slope, dh * act)
    (a[j], c[j], k[j]) = (dx, dy, w * mask.of(h, j))  // da, dc, w g
    da[j] = da[j] + dx
    dc[j] = dc[j] + dy
  }
}

/// The stage as its loops read it.
private struct HiddenStage {
  /// t (M,r), all experts' B (F,E·r) and s.
  struct Branch {
    let t: Matrix<Float>
    let b: Matrix<Float>
    let rank: Int
    let scale: Float
  }

  /// Some columns of a block, and the pairs of some tokens.
  struct Strip {
    let block: Int
    let columns: Range<Int>
    /// Whether they are the block's first.
    let isFirst: Bool
    let chunk: PairChunk
  }

  /// Sums over a block's columns, of every row: (M,width) a block.
  struct Sums {
    let buffer: Buffer<Float>
    let rows, width: Int

    func matrix(_ block: Int) -> Matrix<Float> { Matrix(base: buffer.pointer + block * rows * width, stride: width) }
  }

  let backend: CPUFloat
  let experts, rows, width, rank2: Int
  let base1, base3: Rows<Float>
  let one, three: Branch?
  let a2: Matrix<Float>?
  let pairs: Pairs
  /// The threads' tiles.
  let memory: Buffer<Float>
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
    pairs = Pairs(routing, on: backend)
    memory = backend.core.pool.buffer(backend.core.threads.threads * PairTile.count(rows: rows, experts: experts))
    weights = backend.rows(routing.weights).base
    masks = hidden.mask.flatMap { mask in
      backend.requireIdentity(mask.rows, routing.tokens)
      return backend.dropoutMask(mask.probability, mask.key, mask.rows, routing, columns: f)
    }
    blocks = ColumnBlocks(f, threads: backend.core.threads.threads)
  }

  func sums(width: Int) -> Sums { Sums(buffer: backend.core.pool.buffer(blocks.count * rows * width), rows: rows, width: width) }

  /// Calls `body` for every chunk of pairs in every strip of every block, with the tile of the thread that runs the block.
  @inline(__always)
  func forStrips(_ body: (Strip, PairTile) -> Void) {
    let size = PairTile.count(rows: rows, experts: experts)
    backend.forParts(blocks.count, work: 100 * rows * width) { block, thread in
      let (columns, tile) = (blocks[block], PairTile(memory.pointer + thread * size, rows: rows, experts: experts))
      for chunk in pairs.chunks {
        for start in stride(from: columns.lowerBound, to: columns.upperBound, by: PairTile.width) {
          let strip = start..<min(start + PairTile.width, columns.upperBound)
          body(Strip(block: block, columns: strip, isFirst: start == columns.lowerBound, chunk: chunk), tile)
        }
      }
    }
  }

  /// Calls `body` for every pair of a token, with its row in expert order and in the tile.
  @inline(__always)
  func forPairs(of token: Int, _ body: (_ row: Int, _ i: Int) -> Void) {
    for slot in token * pairs.slots..<(token + 1) * pairs.slots where pairs.rowOfSlot[slot] >= 0 {
      let row = Int(pairs.rowOfSlot[slot])
      body(row, Int(pairs.places.pointer[row]))
    }
  }

  /// What the branches add to the bases of a and c: s t Bᵀ.
  func formBranches(_ strip: Strip, _ tile: PairTile) {
    for run in strip.chunk.runs {
      func form(_ branch: Branch?, _ tile: Rows<Float>) {
        let y = tile.rows(run.place..<run.place + run.rows.count)
        guard let branch else {
          for i in 0..<y.count { y[i].update(repeating: 0, count: strip.columns.count) }
          return
        }
        let b = branch.b.from(row: strip.columns.lowerBound, column: run.expert * branch.rank).transposed
        backend.multiplyHere(
          branch.scale, branch.t.from(row: run.rows.lowerBound), b, 0, y.matrix, y.count, strip.columns.count, branch.rank)
      }
      form(one, tile.a)
      form(three, tile.c)
    }
  }

  /// The row's mask in the strip's columns.
  @inline(__always)
  func mask(_ row: Int, _ strip: Strip, _ tile: PairTile) -> MaskRow<Float> {
    masks?.row(row, from: strip.columns.lowerBound) ?? MaskRow(bits: tile.ones, factor: 1)
  }

  /// y ← Σ of the blocks' sums.
  func join(_ sums: Sums, columns: Range<Int>, into y: Rows<Float>) {
    backend.forRanges(pairs.count, cost: blocks.count * columns.count) { range in
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
