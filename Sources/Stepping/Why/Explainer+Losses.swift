import Layers
import Platform
import Traces

/// Logits, both losses, and the gradient of the cross-entropy.
extension Explainer {
  func logits(_ z: String, _ softcap: Double?, _ index: [Int]) -> Form {
    guard let softcap else { return .sum([Term(factor("z", z, index))]) }
    return .product([
      Factor("c", softcap),
      Factor("tanh(z[\(index.map(String.init).joined(separator: ","))]/c)", Double.tanh(value(z, index) / softcap), of: "z", z),
    ])
  }

  /// Layer after layer, each row b · T + t.
  private func routerLogit(_ gates: [String], _ index: [Int]) -> RunElement {
    let tokens = batch.rows * batch.columns
    let (layer, n) = (index[0] / tokens, index[0] % tokens)
    return RunElement(gates[layer], [n / batch.columns, n % batch.columns, index[1]])
  }

  func routerLogits(_ gates: [String], _ index: [Int]) -> Form {
    let logit = routerLogit(gates, index)
    return .sum([Term(factor("z", logit.name, logit.index))])
  }

  /// The element whose number this one is by another name; itself, if it has a number of its own.
  func original(of element: RunElement) -> RunElement {
    switch run.provenance(of: element.name)?.formula {
    case .logits(let z, softcap: nil): RunElement(z, element.index)
    case .routerLogits(let gates): routerLogit(gates, element.index)
    default: element
    }
  }

  /// The label that a token predicts.
  private func label(_ place: Place) -> Int? {
    let sequence = sequences[place.b]
    guard sequence.adapter != nil else { return nil }
    return sequence.labels[place.t - batch.realColumns[place.b].lowerBound].map { Int($0) }
  }

  /// The tokens that predict a label, of an adapter.
  private func labeled(_ adapter: Int) -> [Row] { allTokens(adapter: adapter).filter { label($0.place) != nil } }

  private func probabilities(_ logits: [Double]) -> (values: [Double], log: (Int) -> Double) {
    let most = logits.max() ?? 0
    let sum = logits.reduce(0) { $0 + Double.exp($1 - most) }
    return (logits.map { Double.exp($0 - most) / sum }, { logits[$0] - most - Double.log(sum) })
  }

  /// (1/n) Σ −log softmax(logits)[label].
  func loss(_ logits: String, _ index: [Int]) -> Form {
    let rows = labeled(index[0])
    let share = Factor("1/n", 1 / Double(rows.count))
    return .sum(
      rows.map { row in
        let label = label(row.place) ?? 0
        return Term(
          share,
          Factor(
            "−log p[\(row.place.b),\(row.place.t),\(label)]", -probabilities(Array(vector(logits, row))).log(label), of: "logits", logits))
      })
  }

  /// (softmax(y)_v − [v = label]) / n, times 1 − (y/c)² under a soft cap.
  func lossGradient(_ z: String, _ softcap: Double?, _ index: [Int]) -> Form {
    let (row, v) = (row(index, nil), index[2])
    guard let label = label(row.place), let adapter = sequences[row.place.b].adapter else {
      return .nothing("the token predicts no label that counts")
    }
    let logits = vector(z, row).map { z in softcap.map { $0 * Double.tanh(z / $0) } ?? z }
    var common = [Factor("1/n", 1 / Double(labeled(adapter).count))]
    if let softcap { common.append(Factor("1 − (y/c)²", 1 - logits[v] * logits[v] / (softcap * softcap), of: "z", z)) }
    var terms = [Term([Factor("p[\(v)]", probabilities(logits).values[v], of: "z", z)] + common)]
    if v == label { terms.append(Term([Factor("−onehot", -1)] + common)) }
    return .sum(terms)
  }

  /// The gradient of the balance loss with respect to every row of p, by the routers' paths: coefficient · E · F / (L·N).
  func balances(_ balance: Formula.Balance) -> [String: [Double]] {
    let tokens = balance.gates.map { allTokens(adapter: $0.adapter) }
    let total = Double(tokens.reduce(0) { $0 + $1.count })  // L·N
    var counts = balance.gates.map { [Double](repeating: 0, count: $0.experts) }
    for (layer, gate) in balance.gates.enumerated() {
      for row in tokens[layer] {
        let chosen = chosen(gate, row.place)
        for (slot, expert) in chosen where balance.form == .pooledTopK || slot == 0 { counts[layer][expert] += 1 }
      }
    }
    if balance.form == .pooledTopK {
      let sums = counts.reduce([Double](repeating: 0, count: counts.first?.count ?? 0)) { zip($0, $1).map(+) }
      counts = counts.map { _ in sums }
    }
    var result: [String: [Double]] = [:]
    for (layer, gate) in balance.gates.enumerated() {
      let all = balance.form == .pooledTopK ? total : Double(tokens[layer].count)
      result[gate.path] = counts[layer].map { $0 / all * balance.coefficient * Double(gate.experts) / total }
    }
    return result
  }

  /// Σ over layers and experts of balance_i Σ_n p_ni.
  func balance(_ balance: Formula.Balance) -> Form {
    let all = balances(balance)
    return .sum(
      balance.gates.enumerated().flatMap { layer, gate in
        (0..<gate.experts).map { i in
          let sum = allTokens(adapter: gate.adapter).reduce(0) { $0 + Array(vector(gate.probabilities, $1))[i] }
          return Term(
            Factor("balance[layer \(layer), \(i)]", all[gate.path]?[i] ?? 0, of: "choice", gate.choice),
            Factor("Σ p[layer \(layer), \(i)]", sum, of: "p", gate.probabilities))
        }
      })
  }
}
