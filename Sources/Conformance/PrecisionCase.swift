import Tensors

/// A short program that runs on backends of any precision with the same inputs.
///
/// Operation by operation the bounds are elementwise (``OperationCase``). Here operations follow each other, as in a
/// layer, and the whole is judged in the norm.
protocol PrecisionProgram: Sendable {
  /// What it computes, with sizes.
  var name: String { get }
  /// Roundings on the longest way from an input to a result.
  var roundings: Int { get }
  /// Its named results.
  func results<B: Backend>(on trial: inout Trial<B>) throws -> [(name: String, tensor: Tensor<B>)]
}

/// The same program on two backends: the error of the lower precision is rounding, or it is a bug.
///
///     ‖low − high‖₂ ≤ n u ‖high‖₂
///
/// n is the number of roundings on the longest way from an input to a result, u the lower unit roundoff: roundings of
/// random sign add up to √n u of Σ|terms| (Higham & Mary 2019, Theorem 2.4), and for random inputs that is at most
/// about √n times |Σ terms|. CPUFloat measures 1/128 to 1/31 of the bound; the sharp bounds are those of the operations.
struct PrecisionCase<Low: Backend, High: Backend> {
  /// The program.
  let name: String
  /// Runs the program on both backends.
  let run: (Low, High) -> Outcome

  init(_ program: some PrecisionProgram) {
    name = program.name
    run = { low, high in
      var lowTrial = Trial(low, .contiguous, name: program.name, inEveryPrecision: true)
      var highTrial = Trial(high, .contiguous, name: program.name, inEveryPrecision: true)
      do {
        let found = try program.results(on: &lowTrial)
        let expected = try program.results(on: &highTrial)
        return try compare(low, found, high, expected, roundings: program.roundings)
      } catch { return .failed("threw \(error)") }
    }
  }

  /// Every program.
  static var all: [PrecisionCase] {
    [PrecisionCase(NormAndProduct()), PrecisionCase(RotatedAttention()), PrecisionCase(RoutedExperts()), PrecisionCase(HeadAndUpdate())]
  }
}

private func compare<Low: Backend, High: Backend>(
  _ low: Low, _ found: [(name: String, tensor: Tensor<Low>)], _ high: High, _ expected: [(name: String, tensor: Tensor<High>)],
  roundings: Int
) throws -> Outcome {
  var worst = (error: 0.0, bound: 0.0)
  guard found.count == expected.count, !expected.isEmpty else { return .failed("\(found.count) results, expected \(expected.count)") }
  for result in 0..<expected.count {
    let name = expected[result].name
    let (shape, expectedShape) = (found[result].tensor.shape, expected[result].tensor.shape)
    guard shape == expectedShape, shape.count > 0 else { return .failed("\(name) is \(shape), expected \(expectedShape)") }
    let x = try low.download(found[result].tensor)
    let y = try high.download(expected[result].tensor)
    var (difference, norm) = (0.0, 0.0)
    for i in 0..<shape.count {
      let error = Double(x[i]) - Double(y[i])
      difference += error * error
      norm += Double(y[i]) * Double(y[i])
    }
    let n = Double(roundings)
    let bound = n * Tolerance(low).unitRoundoff * norm.squareRoot()
    let error = difference.squareRoot()
    guard error <= bound else { return .failed("\(name): ‖low − high‖ is \(error), bound \(bound), ‖high‖ \(norm.squareRoot())") }
    if worst.bound == 0 || error * worst.bound > worst.error * bound { worst = (error, bound) }
  }
  return .passed(error: worst.error, bound: worst.bound)
}

/// rmsNorm, a product, a gated unit and all their gradients.
struct NormAndProduct: PrecisionProgram {
  let name = "rmsNorm, gemm, gated (17,33)(33,65), forward and backward"
  let roundings = 33 + 65 + 17 + Roundings.gatedSlope + Roundings.inverseRoot

  func results<B: Backend>(on trial: inout Trial<B>) throws -> [(name: String, tensor: Tensor<B>)] {
    let b = trial.backend
    let (x, w) = (trial.device(trial.source.matrix(17, 33)), trial.device(trial.source.vector(33)))
    let (gate, up) = (trial.device(trial.source.matrix(65, 33)), trial.device(trial.source.matrix(65, 33)))
    let dh = trial.device(trial.source.matrix(17, 65))
    let (y, rho) = b.rmsNorm(x, w, offset: 1, epsilon: 1e-5)
    let (a, c) = (b.matmul(y, gate.T), b.matmul(y, up.T))
    let h = b.gated(.geluTanh, a, c)
    let (da, dc) = b.gatedBackward(.geluTanh, dh, a, c)
    var dy = b.matmul(da, gate)
    b.addProduct(1, dc, up, into: &dy)
    var (dx, dw, dgate) = (b.zeros(Shape(17, 33)), b.zeros(Shape(33)), b.zeros(Shape(65, 33)))
    b.addProduct(1, da.T, y, into: &dgate)
    b.rmsNormBackward(dy, x, w, offset: 1, rho: rho, into: &dx)
    b.rmsNormWeightGradient(dy, x, rho: rho, into: &dw)
    return [("y", y), ("h", h), ("da", da), ("dc", dc), ("dgate", dgate), ("dx", dx), ("dweight", dw)]
  }
}

/// rope, attention over packed sequences, and their gradients.
struct RotatedAttention: PrecisionProgram {
  let name = "rope, attention H 4 G 2 D 8 offsets [0, 5, 5, 6, 17], forward and backward"
  let roundings = 8 + 2 * 17 + 2 * Roundings.softmax

  func results<B: Backend>(on trial: inout Trial<B>) throws -> [(name: String, tensor: Tensor<B>)] {
    let b = trial.backend
    let form = AttentionForm(heads: 4, keyValueHeads: 2, headWidth: 8, scale: 0.375)
    let plan = SequencePlan(offsets: [0, 5, 5, 6, 17], on: b)
    var (q, k) = (trial.device(trial.source.matrix(17, 32)), trial.device(trial.source.matrix(17, 16)))
    let (v, dy) = (trial.device(trial.source.matrix(17, 16)), trial.device(trial.source.matrix(17, 32)))
    let table = trial.device(Naive.ropeTable(positions: 11, headWidth: 8).map { Double(Float($0)) })
    let positions = trial.device([0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    b.rope(&q, positions: positions, table: table, inverse: false)
    b.rope(&k, positions: positions, table: table, inverse: false)
    let (output, logSumExp) = b.attention(q, k, v, plan, form)
    var (dq, dk, dv) = b.attentionBackward(dy, q, k, v, output: output, logSumExp: logSumExp, plan, form)
    b.rope(&dq, positions: positions, table: table, inverse: true)
    b.rope(&dk, positions: positions, table: table, inverse: true)
    return [("output", output), ("logSumExp", logSumExp), ("dq", dq), ("dk", dk), ("dv", dv)]
  }
}

/// Router, dispatch, grouped products, combine, and their gradients.
struct RoutedExperts: PrecisionProgram {
  let name = "softmax, choose, route, grouped experts N 17 E 5 K 2, forward and backward"
  let roundings = 17 + 9 + 7 + Roundings.softmax

  func results<B: Backend>(on trial: inout Trial<B>) throws -> [(name: String, tensor: Tensor<B>)] {
    let b = trial.backend
    let logits = trial.device(trial.source.matrix(17, 5, 2))
    let (x, dy) = (trial.device(trial.source.matrix(17, 9)), trial.device(trial.source.matrix(17, 7)))
    let experts = ExpertStack(trial.device(trial.source.matrix(45, 7)), experts: 5, along: .rows)
    let p = b.softmax(logits)
    let routing = b.route(p, choice: b.choose(p, .topK(2)), .topK(2))
    let rows = b.dispatch(x, routing)
    let h = b.groupedMatmul(1, rows, experts, routing)
    let y = b.combine(h, weights: routing.weights, routing)
    var dh = b.dispatch(dy, routing)
    let dlogits = b.routerBackward(b.rowDots(dh, h), p, routing, balance: trial.device(trial.source.vector(5)))
    b.scaleRows(routing.weights, &dh)
    let dx = b.combine(b.groupedMatmul(1, dh, experts.T, routing), weights: nil, routing)
    var dexperts = b.zeros(Shape(45, 7))
    b.groupedOuter(1, rows, dh, into: &dexperts, stackedAlong: .rows, routing)
    return [("p", p), ("weights", routing.weights), ("y", y), ("dlogits", dlogits), ("dx", dx), ("dexperts", dexperts)]
  }
}

/// Embedding, logits, loss, gradients and three steps of AdamW.
struct HeadAndUpdate: PrecisionProgram {
  let name = "embedding, crossEntropy N 9 V 33 C 17, three AdamW steps"
  let roundings = 3 * (17 + 33 + 9 + Roundings.softmax + Roundings.update)

  func results<B: Backend>(on trial: inout Trial<B>) throws -> [(name: String, tensor: Tensor<B>)] {
    let b = trial.backend
    let parameter = Parameter("table", trial.device(trial.source.matrix(33, 17)), on: b)
    var (m, v) = (b.zeros(parameter.arena.shape), b.zeros(parameter.arena.shape))
    let ids = trial.device([3, 1, 4, 1, 5, 9, 2, 6, 5])
    let labels = trial.device([1, 4, 1, 5, 9, 2, 6, 5, 32])
    var losses = b.zeros(Shape(9))
    for step in 1...3 {
      let x = b.embedding(ids, parameter.value.operand)
      var logits = b.matmul(x, parameter.value.T)
      let loss = b.crossEntropy(&logits, labels: labels, scale: 0.125, softcap: nil)
      b.add(1, loss, into: &losses)
      b.fill(0, &parameter.gradient)
      b.addProduct(1, logits.T, x, into: &parameter.gradient)
      b.addEmbeddingGradient(1, b.matmul(logits, parameter.value), ids, into: &parameter.gradient)
      // ε = 1/8: with torch's 1e-8 the first step is lr · sign(g), which amplifies the rounding of a small g without bound
      var settings = AdamWSettings(learningRate: 0.01, weightDecay: 0.1, step: step)
      settings.epsilon = 0.125
      b.adamW(&parameter.arena.values, gradient: parameter.arena.gradients, factor: nil, &m, &v, settings, range: nil)
    }
    return [("losses", losses), ("table", parameter.value), ("m", m), ("v", v)]
  }
}
