import Tensors

/// Products with a matrix that is kept as its file encodes it.
///
/// With more than `fewRows` rows on the other side the matrix is expanded into the backend's one scratch buffer, by blocks of rows
/// if it is larger than that may be, and multiplied by OpenBLAS: expanding k·n numbers costs little beside 2·m·k·n flops. With few
/// rows (generation) it is memory that counts: in a bᵀ the blocks are read once, decoded in cache and used for all rows.
/// In a b every row of b adds to every sum; there OpenBLAS sums in blocks, which keeps 49 152 terms (a head's gradient) exact enough.
extension CPUBackend {
  /// Rows up to which a product reads the blocks directly.
  static var fewRows: Int { 8 }

  /// c ← α a b + β c for a dense and b encoded, of which `isTransposed` means bᵀ = W: a (m,k), c (m,n).
  func multiply(
    _ alpha: Scalar, _ a: Matrix<Scalar>, _ b: EncodedMatrix, isTransposed: Bool, _ beta: Scalar, _ c: Matrix<Scalar>, _ m: Int, _ n: Int,
    _ k: Int
  ) {
    if m == 0 || n == 0 { return }
    if m <= Self.fewRows, isTransposed, !a.isTransposed, k > 0 {
      switch b.format {
      case .float16: return multiplyFew(Float16Encoding.self, alpha, a, b, beta, c, m)
      case .bfloat16: return multiplyFew(BFloat16Encoding.self, alpha, a, b, beta, c, m)
      case .q8_0: return multiplyFew(Q8_0Encoding.self, alpha, a, b, beta, c, m)
      case .q4_0: return multiplyFew(Q4_0Encoding.self, alpha, a, b, beta, c, m)
      case .q4_1: return multiplyFew(Q4_1Encoding.self, alpha, a, b, beta, c, m)
      case .q5_0: return multiplyFew(Q5_0Encoding.self, alpha, a, b, beta, c, m)
      case .q5_1: return multiplyFew(Q5_1Encoding.self, alpha, a, b, beta, c, m)
      case .q2_K: return multiplyFew(Q2_KEncoding.self, alpha, a, b, beta, c, m)
      case .q3_K: return multiplyFew(Q3_KEncoding.self, alpha, a, b, beta, c, m)
      case .q4_K: return multiplyFew(Q4_KEncoding.self, alpha, a, b, beta, c, m)
      case .q5_K: return multiplyFew(Q5_KEncoding.self, alpha, a, b, beta, c, m)
      case .q6_K: return multiplyFew(Q6_KEncoding.self, alpha, a, b, beta, c, m)
      case .float32, .float64: trap("gemm: \(b.format.rawValue) is not kept encoded")
      }
    }
    if k == 0 { return multiply(alpha, a, Matrix(base: a.base, stride: 1), beta, c, m, n, 0) }
    let blockRows = max(1, min(b.rows, core.scratchCount / max(1, b.columns)))
    var beta = beta
    for start in stride(from: 0, to: b.rows, by: blockRows) {
      let rows = start..<min(start + blockRows, b.rows)
      var block = expanded(b, rows)
      block.isTransposed = isTransposed
      if isTransposed {
        multiply(alpha, a, block, beta, c.from(column: start), m, rows.count, k)  // some columns of c
      } else {
        multiply(alpha, a.from(column: start), block, beta, c, m, n, rows.count)  // a part of every sum
        beta = 1
      }
    }
  }

  /// Rows of an encoded matrix in the scratch buffer, until it is used again.
  func expanded(_ matrix: EncodedMatrix, _ rows: Range<Int>) -> Matrix<Scalar> {
    let y = scratch(rows.count * matrix.columns).pointer
    forRanges(rows.count, cost: matrix.columns) { range in
      for n in range { matrix.decode(row: rows.lowerBound + n, to: y + n * matrix.columns) }
    }
    return Matrix(base: y, stride: matrix.columns)
  }

  /// The backend's scratch buffer, grown if it is too small.
  private func scratch(_ count: Int) -> Buffer<Scalar> {
    if let buffer = core.scratch as? Buffer<Scalar>, buffer.count >= count { return buffer }
    core.scratch = nil  // back to the pool before another is taken
    let buffer: Buffer<Scalar> = core.pool.buffer(count)
    core.scratch = buffer
    return buffer
  }

  /// c ← α a bᵀ + β c for few rows of a; b is read once.
  @inline(__always)
  private func multiplyFew<E: Encoding>(
    _: E.Type, _ alpha: Scalar, _ a: Matrix<Scalar>, _ b: EncodedMatrix, _ beta: Scalar, _ c: Matrix<Scalar>, _ m: Int
  ) {
    forRanges(b.rows, cost: (m + 1) * b.columns / 4) { rows in
      withUnsafeTemporaryAllocation(of: Scalar.Vector.self, capacity: Self.fewRows + E.chunkCount / Scalar.Vector.scalarCount) { memory in
        guard let sums = memory.baseAddress else { return }
        let chunk = UnsafeMutableRawPointer(sums + Self.fewRows).assumingMemoryBound(to: Scalar.self)
        for o in rows { dots(E.self, alpha, a, b, beta, c, m, o, sums, chunk) }
      }
    }
  }

  /// c[:, o] ← α ⟨a_i, b_o⟩ + β c[:, o]: row o of b is decoded chunk by chunk, each used for all m rows of a.
  @inline(__always)
  private func dots<E: Encoding>(
    _: E.Type, _ alpha: Scalar, _ a: Matrix<Scalar>, _ b: EncodedMatrix, _ beta: Scalar, _ c: Matrix<Scalar>, _ m: Int, _ o: Int,
    _ sums: UnsafeMutablePointer<Scalar.Vector>, _ chunk: UnsafeMutablePointer<Scalar>
  ) {
    let width = Scalar.Vector.scalarCount
    var (source, j) = (b[o], 0)
    for i in 0..<m { sums[i] = Scalar.Vector() }
    while j + E.chunkCount <= b.columns {
      E.decode(source, E.chunkCount, to: chunk)
      for start in stride(from: 0, to: E.chunkCount, by: 32) {
        for i in 0..<m {
          let x = a.base + i * a.stride + j
          var sum = Scalar.Vector()  // of 32 numbers, so that only one sum in four waits for the one before
          for l in stride(from: start, to: start + 32, by: width) {
            sum += chunk[Lanes(start: l, count: width)] * x[Lanes(start: l, count: width)]
          }
          sums[i] += sum
        }
      }
      source += E.chunkBytes
      j += E.chunkCount
    }
    if j < b.columns { E.decode(source, b.columns - j, to: chunk) }
    for i in 0..<m {
      var dot = sums[i].sum()
      for l in j..<b.columns { dot += chunk[l - j] * a.base[i * a.stride + l] }
      let y = c.base + i * c.stride + o
      y.pointee = beta == 0 ? alpha * dot : alpha * dot + beta * y.pointee
    }
  }
}
