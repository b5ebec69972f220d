extension Naive {
  /// log Σ exp x. The largest x is taken out, which changes nothing but keeps e^x finite.
  public static func logSumExp(_ x: [Double]) -> Double {
    let largest = largest(x)
    var total = 0.0
    for value in x { total += naturalExponential(value - largest) }
    return largest + naturalLogarithm(total)
  }

  /// softmax(x)_j = e^{x_j} / Σ e^{x_i}.
  public static func softmax(_ x: [Double]) -> [Double] {
    let largest = largest(x)
    let exponentials = x.map { naturalExponential($0 - largest) }
    var total = 0.0
    for value in exponentials { total += value }
    return exponentials.map { $0 / total }
  }

  private static func largest(_ x: [Double]) -> Double {
    var largest = -Double.infinity
    for value in x where value > largest { largest = value }
    return largest
  }

  /// softmax of each row: (N,E) → (N,E).
  public static func softmax(_ logits: Matrix) -> Matrix {
    Matrix(logits.rows, logits.columns, (0..<logits.rows).flatMap { softmax(logits.row($0)) })
  }

  /// loss_n = −log softmax(logits_n)[label_n] (N), and its gradient scale · (softmax − onehot) (N,V).
  public static func crossEntropy(_ logits: Matrix, labels: [Int], scale: Double) -> (loss: [Double], gradient: Matrix) {
    let p = softmax(logits)
    let loss = (0..<logits.rows).map { n in logSumExp(logits.row(n)) - logits[n, labels[n]] }
    let gradient = Matrix(logits.rows, logits.columns) { n, v in scale * (p[n, v] - (v == labels[n] ? 1 : 0)) }
    return (loss, gradient)
  }
}
