import Platform
import Tensors
import Traces

/// The router: probabilities, choice, weights, and the gradients of weights and logits.
extension Explainer {
  func softmax(_ z: String, _ index: [Int]) -> Form {
    let row = vector(z, row(index, nil))
    let most = row.max() ?? 0
    let sum = row.reduce(0) { $0 + Double.exp($1 - most) }
    return .product([
      Factor("exp(z[\(index.map(String.init).joined(separator: ","))] − max z)", Double.exp(Array(row)[index[2]] - most), of: "z", z),
      Factor("1/Σ exp(z − max z)", 1 / sum, of: "z", z),
    ])
  }

  /// The experts in their order: by falling p, of equal ones the lower number first.
  func choice(_ p: String, _ policy: RoutingPolicy, _ index: [Int]) -> Form {
    let row = Array(vector(p, row(index, nil)))
    let order = row.indices.sorted { (row[$0], $1) > (row[$1], $0) }
    let candidates = order.map { Factor("p[expert \($0)]", row[$0], of: "p", p) }
    var (chosen, sum) = (order.prefix(policy.slots(of: row.count)).map { Double($0) }, 0.0)
    if case .topP(let threshold, _) = policy {
      for (slot, expert) in order.enumerated() {
        if sum > threshold { chosen[slot] = -1 }
        sum += row[expert] / policy.weightDivisor
      }
    }
    return .choice(chosen[index[2]], candidates: candidates)
  }

  /// The r-th token that chose the expert.
  func tokens(_ choice: String, _ expert: Int, _ index: [Int]) -> Form {
    let provenance = run.provenance(of: choice)
    let places = allTokens().filter { row in
      if case .adapter(let number)? = provenance?.rows, sequences[row.place.b].adapter != number { return false }
      return vector(choice, row).contains(Double(expert))
    }.map(\.place).sorted { ($0.b, $0.t) < ($1.b, $1.t) }
    let place = places[index[0]]
    return .sum([
      Term(Factor("b", Double(place.b), of: "choice", choice), Factor("T", Double(batch.columns))),
      Term(Factor("t", Double(place.t), of: "choice", choice)),
    ])
  }

  func weights(_ p: String, _ choice: String, _ policy: RoutingPolicy, _ index: [Int]) -> Form {
    let row = row(index, nil)
    let (ps, experts) = (Array(vector(p, row)), Array(vector(choice, row)))
    guard experts[index[2]] >= 0 else { return .nothing("the slot chose no expert") }
    let own = factor("p", p, row, Int(experts[index[2]]))
    if case .topK = policy {
      let sum = experts.reduce(0) { $1 < 0 ? $0 : $0 + ps[Int($1)] }
      return .product([own, Factor("1/Σ_chosen p", 1 / sum, of: "p", p)])
    }
    return .product(policy.weightDivisor == 1 ? [own] : [own, Factor("1/t", 1 / policy.weightDivisor)])
  }

  /// ⟨dy, e_k⟩, or what that is where the experts share W2.
  func weightsGradient(_ gradient: Formula.WeightsGradient, _ index: [Int]) throws -> Form {
    let place = Place(b: index[0], t: index[1])
    guard let expert = chosen(gradient.gate, place).first(where: { $0.slot == index[2] })?.expert,
      let row = row(of: place, gradient.values[expert].rows)
    else { return .nothing("the slot chose no expert") }
    let (values, dy) = (gradient.values[expert].value, vector(gradient.dy, row))
    let width = vector(values, row).count
    guard let q = gradient.q else {
      return .sum((0..<width).map { Term(factor("dy", gradient.dy, row, $0), factor("e", values, row, $0)) })
    }
    var terms = (0..<width).map { Term(factor("q", q, row, $0), factor("h", values, row, $0)) }
    if !gradient.branches.isEmpty {
      let branch = gradient.branches[expert]
      let (back, low) = (try back(branch, dy), try low(branch, vector(values, row)))
      terms += back.indices.map {
        Term(returned("B2", "dy", back[$0], $0, branch, gradient.dy), projected("A2", "h", low[$0], $0, branch, values))
      }
    }
    if let bias = gradient.bias {
      terms += try run.weightRow(bias, 0).enumerated().map { o, b in Term(factor("dy", gradient.dy, row, o), factor("b2", b, o, of: bias)) }
    }
    return .sum(terms)
  }

  /// The derivative of the weights, and of the balance loss, through the softmax.
  func routerGradient(_ gradient: Formula.RouterGradient, _ index: [Int]) -> Form {
    let (row, j) = (row(index, nil), index[2])
    let experts = chosen(gradient.gate, row.place)
    var terms: [Term] = []
    func weight(_ slot: Int) -> Factor { factor("w", gradient.gate.weights, row, slot) }
    func dw(_ slot: Int) -> Factor { factor("dw", gradient.dw, row, slot) }
    func p(_ e: Int) -> Factor { factor("p", gradient.gate.probabilities, row, e) }
    let minus = Factor("−1", -1)
    let own = experts.first { $0.expert == j }?.slot
    if case .topK = gradient.policy {
      if let own {
        terms.append(Term(weight(own), dw(own)))
        terms += experts.map { Term(minus, weight(own), weight($0.slot), dw($0.slot)) }
      }
    } else {
      let divisor = gradient.policy.weightDivisor == 1 ? [] : [Factor("1/t", 1 / gradient.policy.weightDivisor)]
      if let own { terms.append(Term([p(j), dw(own)] + divisor)) }
      terms += experts.map { Term([minus, p(j), p($0.expert), dw($0.slot)] + divisor) }
    }
    if gradient.balance.coefficient != 0 {
      let balance = balances(gradient.balance)[gradient.gate.path] ?? []
      func factor(_ i: Int) -> Factor { Factor("balance[\(i)]", balance[i], of: "choice", gradient.gate.choice) }
      terms.append(Term(p(j), factor(j)))
      terms += balance.indices.map { Term(minus, p(j), p($0), factor($0)) }
    }
    return terms.isEmpty ? .nothing("the token did not choose the expert") : .sum(terms)
  }
}
