import Conformance
import Tensors
import Traces

// The ideas that are other weights: those of another module, layer or expert, permuted or rounded ones.
extension CauseFinder {
  func otherWeights() throws {
    guard let provenance = comparison.order[target.name], target.phase != "optimizer" else { return }
    let provenances = try Provenances(model.decoder, hasBaseRows: false)
    try frozenWeights(provenance, provenances)
    try trainedTensors(provenance, provenances)
    let roles: [(roles: [Parameter<B>.Role], text: String)] = [
      ([.a, .b, .router], "the adapter's values are"), ([.a], "A of the low-rank branch is"), ([.b], "B of the low-rank branch is"),
      ([.router], "the router's gate is"),
    ]
    for (roles, text) in roles {
      guard let values = try values(Trial(rounded: roles)), values != ours else { continue }
      keep(values, "rounded-weights", rank: 1, "\(text) rounded to bfloat16")
    }
  }

  /// y = x Wᵀ + …: with another W of the same shape, or with its rows in the other pairing.
  private func frozenWeights(_ provenance: Provenance, _ provenances: Provenances<B>) throws {
    guard target.phase == "forward" else { return }
    for input in provenance.inputs {
      guard case .weight(let name) = input.source, case .frozen(let matrix)? = provenances.weights[name] else { continue }
      let others = provenances.weights.keys.sorted().filter { $0 != name && provenances.weights[$0]?.shape == matrix.shape }
      if matrix.shape.isVector {
        vectors(name, matrix, others, provenances)
        continue
      }
      guard ours.count <= 1 << 20, let x = try rows(of: provenance, columns: matrix.shape.columns) else { continue }
      let base = product(x, matrix)
      for other in others.prefix(200) {
        guard case .frozen(let another)? = provenances.weights[other] else { continue }
        keep(swapping(base, product(x, another)), "swapped", rank: 1, "it has the weights of \(other)")
      }
      let d = model.decoder.configuration.attention.headWidth
      guard d > 1, matrix.shape.rows % d == 0 else { continue }
      for toPairs in [true, false] {
        var moved = base
        for i in moved.indices {
          let (row, column) = (i / matrix.shape.rows * matrix.shape.rows, i % matrix.shape.rows)
          let (head, j) = (column / d * d, column % d)
          moved[i] = base[row + head + (toPairs ? j % 2 * (d / 2) + j / 2 : j % (d / 2) * 2 + j / (d / 2))]
        }
        keep(
          swapping(base, moved), "qk-permuted", rank: 0,
          "the weight's rows are in the other pairing: as GGUF files hold q and k, or the reverse")
      }
    }
  }

  /// A norm's weight, or a bias.
  private func vectors(_ name: String, _ matrix: Exact.FrozenMatrix, _ others: [String], _ provenances: Provenances<B>) {
    let own = model.backend.numbers(of: matrix)
    let (isNorm, offset) = (name.contains("norm"), model.decoder.norm.offset)
    let width = own.count
    for other in others {
      guard case .frozen(let another)? = provenances.weights[other] else { continue }
      let numbers = model.backend.numbers(of: another)
      let values = ours.indices.map { i in
        isNorm
          ? ours[i] / (offset + own[i % width]) * (offset + numbers[i % width]) : ours[i] - own[i % width] + numbers[i % width]
      }
      keep(values, "swapped", rank: 1, "it has the weights of \(other)")
    }
  }

  private func swapping(_ base: [Double], _ other: [Double]) -> [Double] { ours.indices.map { ours[$0] - base[$0] + other[$0] } }

  /// x Wᵀ.
  private func product(_ x: [Double], _ matrix: Exact.FrozenMatrix) -> [Double] {
    let exact = model.backend.exact
    var y = exact.empty(Shape(x.count / matrix.shape.columns, matrix.shape.rows))
    exact.gemm(
      1, .dense(exact.upload(x, Shape(x.count / matrix.shape.columns, matrix.shape.columns)), transposed: false),
      .frozen(matrix, transposed: true), 0, into: &y, rows: nil)
    return (try? exact.download(y)) ?? []
  }

  /// The rows that the operation multiplies: the candidate's, of an expert those of its tokens.
  private func rows(of provenance: Provenance, columns: Int) throws -> [Double]? {
    let rowCount = ours.count / max(1, target.shape.last ?? 1)
    for input in provenance.inputs {
      guard case .point(let name) = input.source, let (own, theirs) = try comparison.localValues(name, Trial()) else { continue }
      let x = theirs ?? own
      if x.count == rowCount * columns { return x }
      guard x.count == model.layout.places.count * columns, let range = target.name.firstRange(of: ".experts."),
        let expert = Int(target.name[range.upperBound...].prefix { $0 != "." }), let owner = model.layout.owner(ofPath: target.name),
        let choice = comparison.rows.choices["\(target.name[..<range.lowerBound]).moe_gate.choice"]
      else { continue }
      let slots = owner.mixture.policy.slots(of: owner.mixture.experts)
      let tokens = CandidateRows<B>.tokens(of: expert, in: choice, slots: slots)
      if tokens.count == rowCount { return tokens.flatMap { x[$0 * columns..<($0 + 1) * columns] } }
    }
    return nil
  }

  /// A or B, or both, of another module, layer or expert.
  private func trainedTensors(_ provenance: Provenance, _ provenances: Provenances<B>) throws {
    let all = provenances.trained.keys.sorted()
    func shape(_ name: String) -> Shape? { provenances.trained[name].map { $0.view(of: $0.parameter.value).shape } }
    var own = provenance.inputs.compactMap { if case .weight(let name) = $0.source, provenances.trained[name] != nil { name } else { nil } }
    let numbers = Set(own.compactMap { name in name.firstRange(of: ".experts.").map { name[$0.upperBound...].prefix { $0 != "." } } })
    if own.isEmpty || numbers.count > 1 {
      // A sum over experts: the branches of all of them, expert for expert.
      guard let layer = RunOrder.layer(of: target.name), target.name.contains(".mlp.") else { return }
      own = all.filter { RunOrder.layer(of: $0) == layer && $0.contains(".experts.") }
      return try exchangedExperts(own)
    }
    var tries = 0
    for name in own {
      for other in all where other != name && shape(other) == shape(name) && tries < 150 && isNear(other) {
        tries += 1
        // The same part of both matrices: A and B go together.
        let partner = own.first { $0 != name && sibling(name) == $0 }
        if let values = try values(Trial(assignments: [(name, other)])), values != ours {
          keep(values, other.contains(".experts.") ? "experts-swapped" : "swapped", rank: 2, "\(name) has the values of \(other)")
        }
        guard let partner, name.contains("lora_A"), let otherPartner = sibling(other), shape(otherPartner) == shape(partner),
          let values = try values(Trial(assignments: [(name, other), (partner, otherPartner)])), values != ours
        else { continue }
        keep(values, other.contains(".experts.") ? "experts-swapped" : "swapped", rank: 1, "its branch is that of \(other)")
      }
    }
  }

  /// Two experts' branches exchanged.
  private func exchangedExperts(_ own: [String]) throws {
    var byKey: [String: [Int: String]] = [:]
    for name in own {
      guard let range = name.firstRange(of: ".experts."), let e = Int(name[range.upperBound...].prefix { $0 != "." }) else { continue }
      byKey[OracleComparison<Exact>.group(name), default: [:]][e] = name
    }
    let linears = Dictionary(grouping: byKey.keys.sorted()) {
      $0.split(separator: ".").first { $0.hasSuffix("_proj") }.map(String.init) ?? ""
    }
    let experts = byKey.values.map(\.count).max() ?? 0
    guard experts <= 8 else { return }
    for (linear, keys) in linears.sorted(by: { $0.key < $1.key }) {
      for i in 0..<experts {
        for j in i + 1..<max(i + 1, experts) {
          let assignments = keys.flatMap { key -> [(to: String, from: String)] in
            guard let a = byKey[key]?[i], let b = byKey[key]?[j] else { return [] }
            return [(a, b), (b, a)]
          }
          guard !assignments.isEmpty, let values = try values(Trial(assignments: assignments)), values != ours else { continue }
          keep(values, "experts-swapped", rank: 1, "experts \(i) and \(j) are exchanged in \(linear)")
        }
      }
    }
  }

  private func sibling(_ name: String) -> String? {
    name.contains("lora_A")
      ? name.replacing("lora_A", with: "lora_B") : name.contains("lora_B") ? name.replacing("lora_B", with: "lora_A") : nil
  }

  private func isNear(_ name: String) -> Bool {
    guard let a = RunOrder.layer(of: name), let b = RunOrder.layer(of: target.name) else { return true }
    return abs(a - b) <= 1
  }
}
