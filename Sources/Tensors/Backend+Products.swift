// Products as layers write them.
extension Backend {
  /// a b: (m,k) (k,n) → (m,n).
  public func matmul(_ a: some OperandConvertible<Self>, _ b: some OperandConvertible<Self>) -> Tensor<Self> { matmul(1, a, b) }

  /// α a b: (m,k) (k,n) → (m,n).
  ///
  /// - Complexity: 2·m·k·n flops, and the decoding of a matrix that is kept in a narrower format.
  public func matmul(_ alpha: Double, _ a: some OperandConvertible<Self>, _ b: some OperandConvertible<Self>) -> Tensor<Self> {
    var c = empty(Shape(a.operand.shape.rows, b.operand.shape.columns))
    gemm(alpha, a.operand, b.operand, 0, into: &c, rows: nil)
    return c
  }

  /// c[rows] += α a b; without a range, all rows.
  public func addProduct(
    _ alpha: Double, _ a: some OperandConvertible<Self>, _ b: some OperandConvertible<Self>, into c: inout Tensor<Self>,
    rows: Range<Int>? = nil
  ) {
    gemm(alpha, a.operand, b.operand, 1, into: &c, rows: rows)
  }

  /// c += α a b, where nil counts as zero: the first contribution to a gradient writes it, later ones add.
  public func addProduct(
    _ alpha: Double, _ a: some OperandConvertible<Self>, _ b: some OperandConvertible<Self>, into c: inout Tensor<Self>?
  ) {
    guard var sum = c.take() else {
      c = matmul(alpha, a, b)
      return
    }
    addProduct(alpha, a, b, into: &sum)
    c = sum
  }

  /// sum += x, where nil counts as zero.
  public func add(_ x: Tensor<Self>, into sum: inout Tensor<Self>?) {
    guard var total = sum.take() else {
      sum = x
      return
    }
    add(1, x, into: &total)
    sum = total
  }

  /// α a_e b_e for every expert's rows: (M,k), E × (k,n) → (M,n).
  ///
  /// - Complexity: 2·M·k·n flops, whatever E is.
  public func groupedMatmul(_ alpha: Double, _ a: Tensor<Self>, _ b: ExpertStack<Self>, _ routing: Routing<Self>) -> Tensor<Self> {
    var c = empty(Shape(a.rowCount, b.matrixShape.columns))
    groupedGemm(alpha, a, b, 0, into: &c, routing)
    return c
  }

  /// c_e += α a_e b_e for every expert's rows.
  public func addGroupedProduct(
    _ alpha: Double, _ a: Tensor<Self>, _ b: ExpertStack<Self>, into c: inout Tensor<Self>, _ routing: Routing<Self>
  ) {
    groupedGemm(alpha, a, b, 1, into: &c, routing)
  }

  /// A weight that is one vector, as a tensor (C).
  public func vector(_ weight: Weight<Self>) -> Tensor<Self> {
    switch weight {
    case .frozen(let frozen): vector(frozen)
    case .trained(let parameter): parameter.value
    }
  }
}
