import Platform

extension Naive {
  /// log Σ exp x. The largest x is taken out, which changes nothing but keeps e^x finite.
  public static func logSumExp(_ x: [Double]) -> Double {
    let largest = largest(x)
    var total = 0.0
    for value in x { total += Double.exp(value - largest) }
    return largest + Double.log(total)
  }

  /// softmax(x)_j = e^{x_j} / Σ e^{x_i}.
  public static func softmax(_ x: [Double]) -> [Double] {
    let largest = largest(x)
    let exponentials = x.map { Double.exp($0 - largest) }
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

  /// cap · tanh(z / cap).
  public static func softcap(_ cap: Double, _ z: Double) -> Double { cap * Double.tanh(z / cap) }

  /// Its derivative 1 − tanh²(z / cap), as 1/cosh², which does not cancel: 4 / (e^{z/cap} + e^{−z/cap})².
  public static func softcapSlope(_ cap: Double, _ z: Double) -> Double {
    let sum = Double.exp(z / cap) + Double.exp(-z / cap)
    return 4 / (sum * sum)
  }

  /// cap · tanh(z / cap) of each element.
  public static func softcap(_ cap: Double, _ z: Matrix) -> Matrix { z.map { softcap(cap, $0) } }

  /// loss_n = −log softmax(y_n)[label_n] (N), and its gradient scale · (softmax − onehot) with respect to z (N,V), where y is z or, with
  /// a soft cap, cap · tanh(z / cap).
  public static func crossEntropy(
    _ z: Matrix, labels: [Int], scale: Double, softcap cap: Double? = nil
  ) -> (loss: [Double], gradient: Matrix) {
    let y = cap.map { softcap($0, z) } ?? z
    let p = softmax(y)
    let loss = (0..<y.rows).map { n in logSumExp(y.row(n)) - y[n, labels[n]] }
    let gradient = Matrix(y.rows, y.columns) { n, v in
      scale * (p[n, v] - (v == labels[n] ? 1 : 0)) * (cap.map { softcapSlope($0, z[n, v]) } ?? 1)
    }
    return (loss, gradient)
  }
}
