import CCUDA
import Tensors

extension CUDABackend {
  public func gemm(
    _ alpha: Double, _ a: Operand<Self>, _ b: Operand<Self>, _ beta: Double, into c: inout Tensor<Self>, rows range: Range<Int>?
  ) {
    core.operation {
      let (m, k, n) = (a.shape.rows, a.shape.columns, b.shape.columns)
      let range = range ?? 0..<c.rowCount
      guard range.lowerBound >= 0, range.upperBound <= c.rowCount else { trap("gemm: rows \(range) of c \(c.shape)") }
      requireShapes(
        "gemm", ("b", Shape(b.shape.rows, n), Shape(k, n)), ("the destination in c", Shape(range.count, c.columnCount), Shape(m, n)))
      let cs = writable(&c).from(row: range.lowerBound, column: 0, of: Scalar.self)
      let (left, isLeftTransposed) = dense(a)
      defer { withExtendedLifetime(left) {} }
      let factor = FactorMatrix(rows: rows(left), isTransposed: isLeftTransposed)
      if case .frozen(let frozen, let transposed) = b, case .encoded(let encoded) = frozen.contents {
        return multiply(alpha, factor, encoded, isTransposed: transposed, beta, cs, m, n, k)
      }
      let (right, isRightTransposed) = dense(b)
      defer { withExtendedLifetime(right) {} }
      multiply(alpha, factor, FactorMatrix(rows: rows(right), isTransposed: isRightTransposed), beta, cs, m, n, k)
    }
  }

  /// An operand's matrix, and whether it is transposed. (A frozen left factor occurs in no layer, so an encoded one may cost a tensor.)
  private func dense(_ operand: Operand<Self>) -> (Tensor<Self>, isTransposed: Bool) {
    switch operand {
    case .dense(let tensor, let transposed): return (tensor, transposed)
    case .frozen(let frozen, let transposed):
      switch frozen.contents {
      case .dense(let tensor): return (tensor, transposed)
      case .encoded(let matrix): return (expanded(matrix, 0..<matrix.rows), transposed)
      }
    }
  }

  /// c ← α a b + β c, in one launch but for thin products of many terms; sizes may be 0.
  func multiply(
    _ alpha: Double, _ a: FactorMatrix, _ b: FactorMatrix, _ beta: Double, _ c: DeviceRows, _ m: Int, _ n: Int, _ k: Int
  ) {
    if m == 0 || n == 0 { return }
    if k > 0, let product = core.device.table.multiply {
      return multiplyByVendor(product, alpha, a, b, beta, c, m, n, k)
    }
    if m <= Self.fewRows, k > 0, b.isTransposed, !a.isTransposed {
      let rows = DeviceEncoding(
        base: b.rows.base, stride: b.rows.stride * Int64(MemoryLayout<Scalar>.stride), format: DeviceFormat.scalars.rawValue)
      return multiplyFew(alpha, a.rows, rows, beta, c, m, n, k)
    }
    let plan = ProductPlan(m, n, k, isDouble: Scalar.isDouble)
    if plan.isLarge {
      launch(
        "gemm_large", blocks: plan.tiles, threads: 256, a.left, b.right, c, Int32(m), Int32(n), Int32(k), Scalar(alpha), Scalar(beta))
    } else if plan.parts == 1 {
      launch(
        "gemm_small", blocks: plan.tiles, threads: 256, a.left, b.right, c, Int32(m), Int32(n), Int32(k), Int32(k), Scalar(alpha),
        Scalar(beta))
    } else {
      let sums = empty(Shape(plan.parts * m, n))
      launch(
        "gemm_small", blocks: plan.tiles, by: plan.parts, threads: 256, a.left, b.right, rows(sums), Int32(m), Int32(n), Int32(k),
        Int32(plan.terms), Scalar(1), Scalar(0))
      launch(
        "gemm_sum", over: m * n, address(sums), c, Int64(m * n), Int32(n), Int32(plan.parts), Scalar(alpha), Scalar(beta))
    }
  }

  /// The vendor's words are column-major: a matrix by rows is there the transposed one by columns, and cᵀ = bᵀ aᵀ.
  private func multiplyByVendor(
    _ product: (OpaquePointer, UnsafePointer<cuda_product>) -> Int32, _ alpha: Double, _ a: FactorMatrix, _ b: FactorMatrix,
    _ beta: Double, _ c: DeviceRows, _ m: Int, _ n: Int, _ k: Int
  ) {
    /// `width`: the columns of the matrix as it is stored; the stride of a single row may be less.
    func words(_ rows: DeviceRows, width: Int, isTransposed: Bool) -> cuda_matrix {
      cuda_matrix(base: rows.base, stride: max(rows.stride, Int64(width), 1), is_transposed: isTransposed)
    }
    var whole = cuda_product(
      m: Int32(n), n: Int32(m), k: Int32(k), alpha: alpha, beta: beta,
      a: words(b.rows, width: b.isTransposed ? k : n, isTransposed: b.isTransposed),
      b: words(a.rows, width: a.isTransposed ? m : k, isTransposed: a.isTransposed), c: words(c, width: n, isTransposed: false),
      is_double: Scalar.isDouble)
    core.attempt { try core.device.check(product(core.device.handle, &whole)) }
  }

  public func groupedGemm(
    _ alpha: Double, _ a: Tensor<Self>, _ b: ExpertStack<Self>, _ beta: Double, into c: inout Tensor<Self>, _ routing: Routing<Self>
  ) {
    core.operation {
      let (m, e) = (routing.rows, routing.experts)
      guard b.experts == e else { trap("groupedGemm: a stack of \(b.experts) matrices for \(e) experts") }
      let (k, n) = (b.matrixShape.rows, b.matrixShape.columns)
      requireShapes("groupedGemm", ("a", a.shape, Shape(m, k)), ("c", c.shape, Shape(m, n)))
      let cs = writable(&c)
      let stack = FactorMatrix(rows: rows(b.matrices), isTransposed: b.isTransposed)
      // As many tile rows as experts could have together; the offsets are on the device.
      let tiles = m == 0 ? 0 : (m + 31 * e) / 32 * ((n + 31) / 32)
      launch(
        "grouped_gemm", blocks: tiles, threads: 256, FactorMatrix(rows: rows(a)).left, stack.right, step(b.matrices, b.axis, e), cs,
        address(routing.offsets), Int32(e), Int32(n), Int32(k), Scalar(alpha), Scalar(beta))
    }
  }

  public func groupedOuter(
    _ alpha: Double, _ a: Tensor<Self>, _ b: Tensor<Self>, into g: inout Tensor<Self>, stackedAlong axis: StackAxis,
    _ routing: Routing<Self>
  ) {
    core.operation {
      let (m, e, p, q) = (routing.rows, routing.experts, a.columnCount, b.columnCount)
      requireShapes(
        "groupedOuter", ("a", a.shape, Shape(m, p)), ("b", b.shape, Shape(m, q)),
        ("g", g.shape, axis == .rows ? Shape(e * p, q) : Shape(p, e * q)))
      let gs = writable(&g)
      let tiles = m == 0 ? 0 : (p + 31) / 32 * ((q + 31) / 32)
      launch(
        "grouped_outer", blocks: tiles, by: e, threads: 256, FactorMatrix(rows: rows(a), isTransposed: true).left,
        FactorMatrix(rows: rows(b)).right, gs, step(g, axis, e), address(routing.offsets), Int32(p), Int32(q), Scalar(alpha))
    }
  }

  /// Scalars from one expert's matrix of a stack to the next.
  private func step(_ stack: Tensor<Self>, _ axis: StackAxis, _ experts: Int) -> Int64 {
    Int64(axis == .rows ? stack.rowCount / experts * stack.rowStride : stack.columnCount / experts)
  }
}

/// Which kernels form a product (m,k) (k,n): a rule of its sizes alone, so that results are the same bits on every device.
struct ProductPlan {
  /// In large tiles, as soon as these are enough for a device to be busy with.
  let isLarge: Bool
  let tiles: Int
  /// Where even small tiles are few, long sums are cut into parts, which a second kernel adds up.
  let parts: Int
  /// Terms of a part.
  let terms: Int

  init(_ m: Int, _ n: Int, _ k: Int, isDouble: Bool) {
    func tiles(_ side: Int) -> Int { (m + side - 1) / side * ((n + side - 1) / side) }
    let large = tiles(isDouble ? 64 : 128)
    isLarge = large >= 96
    self.tiles = isLarge ? large : tiles(32)
    if isLarge || self.tiles >= 64 || k < 2048 {
      (parts, terms) = (1, k)
    } else {
      let wanted = min(k / 512, 128 / self.tiles)
      terms = (k + wanted - 1) / wanted
      parts = (k + terms - 1) / terms
    }
  }
}
