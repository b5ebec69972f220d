import Traces

/// One step of AdamW from moments of zero.
extension Explainer {
  func moment(_ order: Int, _ gradient: String, _ index: [Int]) -> Form {
    let numbers = run.optimizer
    let g = factor("g", gradient, index)
    return .product(order == 1 ? [Factor("1 − β₁", 1 - numbers.beta1), g] : [Factor("1 − β₂", 1 - numbers.beta2), g, g])
  }

  /// w − lr λ w − lr/(1 − β₁) m / (√(v/(1 − β₂)) + ε).
  func update(_ weight: String, _ first: String, _ second: String, _ index: [Int]) throws -> Form {
    let numbers = run.optimizer
    let shape = run.weightShape(weight) ?? []
    let value = try run.weightRow(weight, shape.count == 1 ? 0 : index[0])[index[index.count - 1]]
    let w = Factor("w[\(index.map(String.init).joined(separator: ","))]", value, of: "w", weight)
    let root = (self.value(second, index) / (1 - numbers.beta2)).squareRoot() + numbers.epsilon
    return .sum([
      Term(w), Term(Factor("−lr", -numbers.learningRate), Factor("λ", numbers.weightDecay), w),
      Term(
        Factor("−lr/(1 − β₁)", -numbers.learningRate / (1 - numbers.beta1)), factor("m", first, index),
        Factor("1/(√(v/(1 − β₂)) + ε)", 1 / root, of: "v", second)),
    ])
  }
}
