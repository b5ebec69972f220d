import Conformance
import Platform
import Tensors

// Mistaken weights, gradients and steps.
extension RoundingBackend {
  /// A frozen matrix as a mistaken program reads it: a square one transposed, or rounded to 16 bits.
  func mistakenWeight(_ operand: Operand<RoundingBackend>) -> Operand<RoundingBackend> {
    guard let mutation, case .frozen(let matrix, let transposed) = operand else { return operand }
    switch mutation {
    case .squareTransposed where matrix.shape.rows == matrix.shape.columns: return .frozen(matrix, transposed: !transposed)
    case .weightsRounded(let precision):
      var values = decoded(matrix)
      (precision == .bfloat16 ? Precision.bfloat16 : .float16).round(&values)
      return .dense(outer(exact.upload(values, matrix.shape)), transposed: transposed)
    default: return operand
    }
  }

  /// The numbers of a frozen matrix, row after row: those of an embedding that asks for each once.
  func decoded(_ matrix: Exact.FrozenMatrix) -> [Double] {
    let rows = exact.upload((0..<Int32(matrix.shape.rows)).map { $0 })
    return (try? exact.download(exact.embedding(rows, .frozen(matrix, transposed: false)))) ?? []
  }

  /// A stack in which every expert has the matrices of another.
  func shifted(_ stack: ExpertStack<RoundingBackend>) -> Tensor<RoundingBackend> {
    guard case .expertsShifted(let by)? = mutation, let values = try? exact.download(inner(stack.matrices)) else { return stack.matrices }
    let (rows, columns, e) = (stack.matrices.rowCount, stack.matrices.columnCount, stack.experts)
    var moved = values
    let (r, c) = (stack.axis == .rows ? rows / e : rows, stack.axis == .columns ? columns / e : columns)
    for i in 0..<rows {
      for j in 0..<columns {
        let from =
          stack.axis == .rows ? ((i / r + by) % e * r + i % r) * columns + j : i * columns + (j / c + by) % e * c + j % c
        moved[i * columns + j] = values[from]
      }
    }
    return outer(exact.upload(moved, stack.matrices.shape))
  }

  /// dx += ρ (dy ⊙ g), without what the norm's own change adds, or with a sum where its mean belongs.
  func addShortNormGradient(
    _ dy: Tensor<RoundingBackend>, _ x: Tensor<RoundingBackend>, _ weight: Tensor<RoundingBackend>, offset: Double,
    rho: Tensor<RoundingBackend>,
    into dx: inout Tensor<RoundingBackend>
  ) {
    guard var d = try? exact.download(inner(dy)), let w = try? exact.download(inner(weight)), let r = try? exact.download(inner(rho)) else {
      return
    }
    let c = dy.columnCount
    for i in d.indices { d[i] *= offset + w[i % c] }
    if mutation == .normBackwardSum, let xs = try? exact.download(inner(x)) {
      for n in 0..<dy.rowCount {
        let dot = (0..<c).reduce(0) { $0 + d[n * c + $1] * xs[n * c + $1] }
        for j in 0..<c { d[n * c + j] = r[n] * d[n * c + j] - xs[n * c + j] * r[n] * r[n] * r[n] * dot }
      }
    } else {
      for i in d.indices { d[i] *= r[i / c] }
    }
    write(&dx) { exact.add(1, exact.upload(d, dy.shape), into: &$0, rows: nil) }
  }

  func mistakenUpdate(
    _ x: inout Tensor<RoundingBackend>, _ gradient: Tensor<RoundingBackend>, _ m: inout Tensor<RoundingBackend>,
    _ v: inout Tensor<RoundingBackend>, _ settings: AdamWSettings, _ range: Range<Int>?
  ) {
    guard var xs = try? exact.download(inner(x)), let g = try? exact.download(inner(gradient)), var ms = try? exact.download(inner(m)),
      var vs = try? exact.download(inner(v))
    else { return }
    mistakenStep(&xs, g, &ms, &vs, settings, range ?? 0..<xs.count)
    let shape = x.shape
    write(&x) { exact.copy(exact.upload(xs, shape), into: &$0, rows: nil, columns: nil) }
    write(&m) { exact.copy(exact.upload(ms, shape), into: &$0, rows: nil, columns: nil) }
    write(&v) { exact.copy(exact.upload(vs, shape), into: &$0, rows: nil, columns: nil) }
  }

  // MARK: Optimizer

  /// One step with a mistake, element by element.
  func mistakenStep(
    _ x: inout [Double], _ g: [Double], _ m: inout [Double], _ v: inout [Double], _ s: AdamWSettings, _ range: Range<Int>
  ) {
    guard case .adamW(let mistake)? = mutation else { return }
    var (beta1, beta2, epsilon, rate) = (s.beta1, s.beta2, s.epsilon, s.learningRate)
    switch mistake {
    case .betasSwapped: (beta1, beta2) = (beta2, beta1)
    case .noMoments: (beta1, beta2) = (0, 0)
    case .beta1(let other): beta1 = other
    case .beta2(let other): beta2 = other
    case .epsilon(let other): epsilon = other
    case .ascent: rate = -rate
    case .rateTimes(let factor): rate *= factor
    default: break
    }
    var t = Double(s.step)
    if case .stepLater(let by) = mistake { t += Double(by) }
    if t < 1 { return }
    let (c1, c2) = (
      [.noBiasCorrection, .correctsSecondOnly].contains(mistake) ? 1 : 1 - Double.pow(beta1, t),
      [.noBiasCorrection, .correctsFirstOnly].contains(mistake) ? 1 : 1 - Double.pow(beta2, t)
    )
    for i in range {
      var gradient = g[i]
      if mistake == .coupledDecay { gradient += s.weightDecay * x[i] }
      let decay = mistake == .decayWithoutRate ? s.weightDecay : abs(rate) * s.weightDecay  // goes with the rate, wherever the step goes
      let decaysFirst = ![.coupledDecay, .decayAfter, .noDecay].contains(mistake)
      if decaysFirst { x[i] *= 1 - decay }
      if mistake == .sgd {
        x[i] -= rate * gradient
        continue
      }
      m[i] = beta1 * m[i] + (1 - beta1) * gradient
      v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient
      let root: Double
      switch mistake {
      case .epsilonInsideRoot: root = (v[i] / c2 + epsilon).squareRoot()
      case .epsilonBeforeCorrection: root = (v[i].squareRoot() + epsilon) / c2.squareRoot()
      default: root = (v[i] / c2).squareRoot() + epsilon
      }
      x[i] -= rate * m[i] / c1 / root
      if mistake == .decayAfter { x[i] *= 1 - decay }
    }
    if mistake == .valuesRounded { Precision.bfloat16.round(&x) }
  }
}
