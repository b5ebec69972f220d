import Tensors

// What experts make of tokens, an expert's rows at a time: E times fewer flops a pair than products of all experts with all tokens, for
// gathering rows. CPUDouble, the oracle, runs these instead (the definitions in `Backend`).

extension CPUFloat {
  /// Parts are chunks of an expert's rows, whose tokens are gathered where the product finds them in cache.
  public func expertProduct(_ alpha: Double, _ x: Tensor<CPUFloat>, _ s: ExpertStack<CPUFloat>, _ routing: Routing<CPUFloat>) -> Tensor<
    CPUFloat
  > {
    core.timed("expertProduct") {
      let (k, n) = requireStack("expertProduct", s, routing)
      requireShapes("expertProduct", ("x", x.shape, Shape(routing.tokens, k)))
      let (y, ys) = fresh(Shape(routing.rows, n))
      let (xs, plan) = (rows(x), ExpertRows(routing, on: self))
      let chunks = plan.chunks
      plan.withTiles(columns: k) { tile in
        forParts(chunks.count, work: routing.rows * k * n / 8) { part, thread in
          let (expert, rows) = chunks[part]
          let gathered = tile(thread)
          for (i, row) in rows.enumerated() { gathered[i].update(from: xs[plan.token(row)], count: k) }
          multiplyHere(
            Float(alpha), gathered.matrix, block(expert, s), 0, ys.matrix.from(row: rows.lowerBound), rows.count, n, k)
        }
      }
      return y
    }
  }

  /// Parts are blocks of columns, so that a token's row has one writer.
  public func addExpertProducts(
    _ alpha: Double, _ t: Tensor<CPUFloat>, weights: Tensor<CPUFloat>?, _ s: ExpertStack<CPUFloat>, into y: inout Tensor<CPUFloat>,
    rows range: Range<Int>, _ routing: Routing<CPUFloat>
  ) {
    core.timed("addExpertProducts") {
      let (k, n) = requireStack("addExpertProducts", s, routing)
      requireShapes(
        "addExpertProducts", ("t", t.shape, Shape(routing.rows, k)), ("y", Shape(range.count, y.columnCount), Shape(routing.tokens, n)))
      let (ts, ys, w) = (rows(t).matrix, writable(&y).rows(range), weights.map { rows($0).base })
      let (plan, blocks) = (ExpertRows(routing, on: self), ColumnBlocks(n, threads: core.threads.threads))
      plan.withTiles(columns: blocks.width) { tile in
        forParts(blocks.count, work: routing.rows * k * n / 8) { part, thread in
          let (columns, products) = (blocks[part], tile(thread))
          for (expert, rows) in plan.chunks {
            let factor = block(expert, s).from(column: columns.lowerBound)
            multiplyHere(Float(alpha), ts.from(row: rows.lowerBound), factor, 0, products.matrix, rows.count, columns.count, k)
            for (i, row) in rows.enumerated() {
              let (p, y, w) = (products[i], ys[plan.token(row)] + columns.lowerBound, w.map { $0[row] } ?? 1)
              for j in Float.lanes(0..<columns.count) { y[j] = y[j] + w * p[j] }
            }
          }
        }
      }
    }
  }

  /// Parts are blocks of x's columns.
  public func addExpertOuter(
    _ alpha: Double, _ t: Tensor<CPUFloat>, weights: Tensor<CPUFloat>?, _ x: Tensor<CPUFloat>, into g: inout Tensor<CPUFloat>,
    stackedAlong axis: StackAxis, _ routing: Routing<CPUFloat>
  ) {
    core.timed("addExpertOuter") {
      let (e, p, q) = (routing.experts, t.columnCount, x.columnCount)
      requireShapes(
        "addExpertOuter", ("t", t.shape, Shape(routing.rows, p)), ("x", x.shape, Shape(routing.tokens, q)),
        ("g", g.shape, axis == .rows ? Shape(e * p, q) : Shape(q, e * p)))
      let (ts, xs, gs, w) = (rows(t).matrix, rows(x), writable(&g).matrix, weights.map { rows($0).base })
      let (plan, blocks) = (ExpertRows(routing, on: self), ColumnBlocks(q, threads: core.threads.threads))
      plan.withTiles(columns: blocks.width) { tile in
        forParts(blocks.count, work: routing.rows * p * q / 8) { part, thread in
          let (columns, gathered) = (blocks[part], tile(thread))
          for (expert, rows) in plan.chunks {
            for (i, row) in rows.enumerated() {
              let (x, y, w) = (xs[plan.token(row)] + columns.lowerBound, gathered[i], w.map { $0[row] } ?? 1)
              for j in Float.lanes(0..<columns.count) { y[j] = w * x[j] }
            }
            let (t, x) = (ts.from(row: rows.lowerBound), gathered.matrix)
            switch axis {
            case .rows:  // g_e += tᵀ x
              let g = gs.from(row: expert * p, column: columns.lowerBound)
              multiplyHere(Float(alpha), t.transposed, x, 1, g, p, columns.count, rows.count)
            case .columns:  // g_e += xᵀ t
              let g = gs.from(row: columns.lowerBound, column: expert * p)
              multiplyHere(Float(alpha), x.transposed, t, 1, g, columns.count, p, rows.count)
            }
          }
        }
      }
    }
  }

  /// The two one after the other.
  public func addExpertGradients(
    _ dt: Tensor<CPUFloat>, _ x: Tensor<CPUFloat>, _ s: ExpertStack<CPUFloat>, into g: inout Tensor<CPUFloat>,
    _ dx: inout Tensor<CPUFloat>?, _ routing: Routing<CPUFloat>
  ) {
    addExpertOuter(1, dt, weights: nil, x, into: &g, stackedAlong: .rows, routing)
    var sum = dx.take() ?? zeros(x.shape)
    addExpertProducts(1, dt, weights: nil, s, into: &sum, rows: 0..<x.rowCount, routing)
    dx = sum
  }

  private func requireStack(_ operation: StaticString, _ s: ExpertStack<CPUFloat>, _ routing: Routing<CPUFloat>) -> (k: Int, n: Int) {
    guard s.experts == routing.experts else { trap("\(operation): a stack of \(s.experts) matrices for \(routing.experts) experts") }
    return (s.matrixShape.rows, s.matrixShape.columns)
  }

  private func block(_ expert: Int, _ s: ExpertStack<CPUFloat>) -> Matrix<Float> {
    var matrix = rows(s[expert]).matrix
    matrix.isTransposed = s.isTransposed
    return matrix
  }
}

/// The rows of a plan as loops over tiles read them: chunks of an expert's rows, few enough that what is formed of them stays in cache.
struct ExpertRows {
  /// Rows of a chunk.
  static let chunk = 64

  /// In the order of rows.
  let chunks: [(expert: Int, rows: Range<Int>)]
  private let backend: CPUFloat
  private let tokens: UnsafeMutablePointer<Int32>

  init(_ routing: Routing<CPUFloat>, on backend: CPUFloat) {
    let offsets = backend.integers(routing.offsets)
    self.backend = backend
    tokens = backend.integers(routing.tokenOfRow)
    chunks = (0..<routing.experts).flatMap { expert in
      let end = Int(offsets[expert + 1])
      return stride(from: Int(offsets[expert]), to: end, by: Self.chunk).map { (expert, $0..<min($0 + Self.chunk, end)) }
    }
  }

  /// The token of a row.
  @inline(__always)
  func token(_ row: Int) -> Int { Int(tokens[row]) }

  /// Numbers in a tile of a chunk's rows.
  static func tileCount(columns: Int) -> Int { chunk * columns }

  /// Calls `body` with memory for a tile of a chunk's rows a thread.
  @inline(__always)
  func withTiles(columns: Int, _ body: ((_ thread: Int) -> Rows<Float>) -> Void) {
    let size = Self.tileCount(columns: columns)
    let scratch = backend.core.pool.buffer(backend.core.threads.threads * size, of: Float.self)
    body { Rows(base: scratch.pointer + $0 * size, count: Self.chunk, width: columns, stride: columns) }
    withExtendedLifetime(scratch) {}
  }
}

/// Columns cut into blocks of about 256, or two a thread where there are columns for them: multiples of 64, but for the last.
struct ColumnBlocks {
  let count: Int
  private let columns: Int
  private var units: Int { (columns + 63) / 64 }

  init(_ columns: Int, threads: Int) {
    self.columns = columns
    count = max(1, min((columns + 63) / 64, max((columns + 255) / 256, 2 * threads)))
  }

  /// Columns of the widest block, or a few more.
  var width: Int { (units + count - 1) / count * 64 }

  subscript(block: Int) -> Range<Int> { block * units / count * 64..<min((block + 1) * units / count * 64, columns) }
}
