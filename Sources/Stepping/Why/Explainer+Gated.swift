import Platform
import Tensors
import Traces

/// act(a) ⊙ c: forward, and the gradients of a and c. act is x σ(z) for both nonlinearities, as the CPU computes it.
extension Explainer {
  /// σ(z) of act(x) = x σ(z), and z′.
  private func sigmoid(_ activation: Activation, _ x: Double) -> (value: Double, slope: Double, text: String) {
    switch activation {
    case .silu: return (1 / (1 + Double.exp(-x)), 1, "σ(a)")
    case .geluTanh:
      let root = (8 / Double.pi).squareRoot()
      let z = root * (x + 0.044715 * x * x * x)
      return (1 / (1 + Double.exp(-z)), root * (1 + 3 * 0.044715 * x * x), "½(1+tanh u)")
    }
  }

  private func row(_ name: String, _ index: [Int]) -> Row {
    isOfTokens(name)
      ? Row(place: Place(b: index[0], t: index[1]), expertRow: nil) : Row(place: Place(b: 0, t: 0), expertRow: index[0])
  }

  func gated(_ a: String, _ c: String, _ activation: Activation, _ index: [Int]) -> Form {
    let (row, i) = (row(a, index), index[index.count - 1])
    let sigmoid = sigmoid(activation, value(a, self.index(a, row, i)))
    return .product([factor("a", a, row, i), Factor(sigmoid.text, sigmoid.value, of: "a", a), factor("c", c, row, i)])
  }

  func gatedGradient(_ ofUp: Bool, _ dh: String, _ a: String, _ c: String, _ activation: Activation, _ index: [Int]) -> Form {
    let (row, i) = (row(a, index), index[index.count - 1])
    let x = value(a, self.index(a, row, i))
    let sigmoid = sigmoid(activation, x)
    if ofUp { return .product([factor("dh", dh, row, i), factor("a", a, row, i), Factor(sigmoid.text, sigmoid.value, of: "a", a)]) }
    let slope = sigmoid.value + x * sigmoid.value * (1 - sigmoid.value) * sigmoid.slope
    return .product([factor("dh", dh, row, i), factor("c", c, row, i), Factor("act′(a)", slope, of: "a", a)])
  }
}
