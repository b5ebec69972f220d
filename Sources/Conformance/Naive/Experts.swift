import Tensors

extension Naive {
  /// The row of each token once for every expert that it chose, zero in a row that is nobody's: x (N,W) → (M,W), ordered by expert.
  public static func dispatch(_ x: Matrix, _ plan: Plan) -> Matrix {
    Matrix(plan.rows, x.columns) { m, j in m < plan.pairs ? x[plan.tokenOfRow[m], j] : 0 }
  }

  /// Σ_k of a token's rows, times their weights when given: x (M,W), weights (M) → (N,W).
  public static func combine(_ x: Matrix, weights: [Double]?, _ plan: Plan) -> Matrix {
    var y = Matrix(plan.tokens, x.columns)
    for m in 0..<plan.pairs {
      for j in 0..<x.columns {
        if let weights { y[plan.tokenOfRow[m], j] += weights[m] * x[m, j] } else { y[plan.tokenOfRow[m], j] += x[m, j] }
      }
    }
    return y
  }

  /// For each row its own expert's block of columns: x (N,E·r) → (M,r).
  public static func dispatchBlocks(_ x: Matrix, _ plan: Plan) -> Matrix {
    let r = x.columns / plan.experts
    return Matrix(plan.rows, r) { m, j in m < plan.pairs ? x[plan.tokenOfRow[m], plan.expert(ofRow: m) * r + j] : 0 }
  }

  /// x (M,r) into its expert's block of columns, zero elsewhere, times the weights when given → (N,E·r).
  public static func combineBlocks(_ x: Matrix, weights: [Double]?, _ plan: Plan) -> Matrix {
    let r = x.columns
    var y = Matrix(plan.tokens, plan.experts * r)
    for m in 0..<plan.pairs {
      for j in 0..<r {
        let column = plan.expert(ofRow: m) * r + j
        if let weights { y[plan.tokenOfRow[m], column] = weights[m] * x[m, j] } else { y[plan.tokenOfRow[m], column] = x[m, j] }
      }
    }
    return y
  }

  /// Expert e of a stack of E matrices, one below the other or side by side.
  public static func block(_ e: Int, of experts: Int, in stack: Matrix, sideBySide: Bool) -> Matrix {
    if sideBySide {
      let width = stack.columns / experts
      return stack.columns(e * width..<(e + 1) * width)
    }
    let height = stack.rows / experts
    return stack.rows(e * height..<(e + 1) * height)
  }

  /// α a_m b_e + β c_m for every row m of every expert e: a (M,k), b_e (k,n) given by `expert`, c (M,n). With β = 0, c is not read.
  public static func groupedGemm(
    _ alpha: Double, _ a: Matrix, _ expert: (_ e: Int) -> Matrix, _ beta: Double, _ c: Matrix, _ plan: Plan
  ) -> Matrix {
    var result = c
    for e in 0..<plan.experts {
      let rows = plan.rows(of: e)
      let part = gemm(alpha, a.rows(rows), expert(e), beta, c.rows(rows))
      for i in 0..<rows.count {
        for j in 0..<c.columns { result[rows.lowerBound + i, j] = part[i, j] }
      }
    }
    return result
  }

  /// g_e + α a_eᵀ b_e over every expert's rows: a (M,p), b (M,q), g a stack of E matrices (p,q).
  public static func groupedOuter(_ alpha: Double, _ a: Matrix, _ b: Matrix, to g: Matrix, sideBySide: Bool, _ plan: Plan) -> Matrix {
    var result = g
    for m in 0..<plan.pairs {
      let e = plan.expert(ofRow: m)
      for i in 0..<a.columns {
        for j in 0..<b.columns {
          let (row, column) = sideBySide ? (i, e * b.columns + j) : (e * a.columns + i, j)
          result[row, column] += alpha * a[m, i] * b[m, j]
        }
      }
    }
    return result
  }

  /// α x_n S_e of every row m, n its token and e its expert: x (N,k), S_e (k,n) given by `expert` → (M,n).
  public static func expertProduct(_ alpha: Double, _ x: Matrix, _ expert: (_ e: Int) -> Matrix, _ plan: Plan) -> Matrix {
    groupedGemm(alpha, dispatch(x, plan), expert, 0, Matrix(plan.rows, expert(0).columns), plan)
  }

  /// y_n + α Σ w_m t_m S_e over the rows m of every token n: t (M,k), S_e (k,n) given by `expert`, y (N,n). Without weights, w = 1.
  public static func expertProducts(
    _ alpha: Double, _ t: Matrix, weights: [Double]?, _ expert: (_ e: Int) -> Matrix, to y: Matrix, _ plan: Plan
  ) -> Matrix {
    add(1, combine(groupedGemm(alpha, t, expert, 0, Matrix(t.rows, y.columns), plan), weights: weights, plan), to: y)
  }

  /// g_e + α Σ w_m t_mᵀ x_n over the rows m of every expert e, n their tokens: t (M,p), x (N,q), g a stack of E matrices (p,q), or (q,p) side
  /// by side. Without weights, w = 1.
  public static func expertOuter(
    _ alpha: Double, _ t: Matrix, weights: [Double]?, _ x: Matrix, to g: Matrix, sideBySide: Bool, _ plan: Plan
  ) -> Matrix {
    let (t, x) = (Matrix(t.rows, t.columns) { m, j in (weights?[m] ?? 1) * t[m, j] }, dispatch(x, plan))
    return sideBySide
      ? groupedOuter(alpha, x, t, to: g, sideBySide: true, plan) : groupedOuter(alpha, t, x, to: g, sideBySide: false, plan)
  }
}
