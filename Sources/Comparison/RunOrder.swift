import Traces

/// Every tensor that a trace of a model may have, in the order in which a run forms them.
///
/// A parameter's gradient stands where it is formed, right behind the gradients that it is made of.
struct RunOrder {
  /// All names.
  let names: [String]
  private let positions: [String: Double]
  private var provenances: [String: Provenance]

  /// A list of names, of which no more is known.
  init(_ names: [String]) {
    (self.names, provenances) = (names, [:])
    positions = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, Double($0)) })
  }

  /// The order of one evaluation, with what only another one forms put in behind what it is formed from.
  init(_ list: [Provenance], with others: [Provenance]) {
    var (positions, provenances): ([String: Double], [String: Provenance]) = ([:], [:])
    for (i, provenance) in list.enumerated() {
      positions[provenance.name] = Double(i)
      provenances[provenance.name] = provenance
    }
    func isParameterGradient(_ provenance: Provenance) -> Bool {
      [.matrixGradient, .biasGradient, .gainGradient, .embeddingGradient, .branchGradient].contains(provenance.operation)
    }
    // What is made of other tensors stands behind the last of them; a little further, the later it comes in its own list.
    for (i, provenance) in others.enumerated() where positions[provenance.name] == nil {
      let before = i > 0 ? positions[others[i - 1].name] ?? -1 : -1
      positions[provenance.name] = before + 1e-6
      provenances[provenance.name] = provenance
    }
    for (i, provenance) in list.enumerated() where isParameterGradient(provenance) {
      let inputs = provenance.inputs.compactMap { positions[$0.name] }
      if let last = inputs.max() { positions[provenance.name] = last + 0.5 + 1e-7 * Double(i) }
    }
    (self.positions, self.provenances) = (positions, provenances)
    names = positions.sorted { $0.value < $1.value }.map(\.key)
  }

  /// The same order, in which tensors come from where one evaluation takes them.
  func reading(_ list: [Provenance]) -> RunOrder {
    var order = self
    for provenance in list { order.provenances[provenance.name] = provenance }
    return order
  }

  /// Where a tensor stands.
  func position(_ name: String) -> Double { positions[name] ?? .infinity }
  /// Where it comes from.
  subscript(_ name: String) -> Provenance? { provenances[name] }
}
