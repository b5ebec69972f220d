import Layers
import Tensors
import Traces

/// Explains numbers of a run: the terms of the sum or the factors of the product that each of them is.
///
/// A formula says what a tensor is formed of; the files beside this one say what one element is, a file a kind of operation.
public struct Explainer {
  let run: any RunValues
  let batch: TraceBatch
  let sequences: [PackedSequence]

  /// Of a recorded run.
  public init(_ run: any RunValues) {
    (self.run, batch, sequences) = (run, run.batch, run.batch.sequences)
  }

  typealias Term = Explanation.Term
  typealias Factor = Explanation.Factor
  typealias Source = Explanation.Factor.Source
  typealias Form = Explanation.Form

  /// How an element is formed.
  ///
  /// - Precondition: the run has the element.
  /// - Throws: what the device reports when a weight is read.
  public func why(_ element: RunElement) throws -> Explanation {
    guard let provenance = run.provenance(of: element.name) else { trap("\(element): no formula") }
    let form = try empty(element, provenance) ?? form(provenance.formula, element.index)
    return Explanation(
      element: element, value: value(element.name, element.index), equation: provenance.equation, form: form)
  }

  /// Why a row of tokens has nothing: padding, or a token that the tensor has no row of.
  private func empty(_ element: RunElement, _ provenance: Provenance) -> Form? {
    guard isOfTokens(element.name) else { return nil }
    let place = Place(b: element.index[0], t: element.index[1])
    if !batch.realColumns[place.b].contains(place.t) { return .nothing("padding: row \(place.b) has no token in column \(place.t)") }
    let owner = sequences[place.b].adapter
    switch provenance.rows {
    case .all: return nil
    case .adapter(let number): return owner == number ? nil : .nothing("row \(place.b) is not adapter \(number)'s")
    case .base: return owner == nil ? nil : .nothing("row \(place.b) is an adapter's")
    }
  }

  private func form(_ formula: Formula, _ index: [Int]) throws -> Form {
    switch formula {
    case .embedding(let weight, let scale): return try embedding(weight, scale, index)
    case .norm(let norm): return try self.norm(norm, index)
    case .linear(let linear): return try self.linear(linear, index)
    case .rotary(let x, let width): return rotary(x, "x", width, index, isBack: false)
    case .attention(let inputs): return attention(inputs, index)
    case .same(let x): return .sum([Term(factor("x", x, index))])
    case .sum(let parts): return .sum(zip(["x", "z"], parts).map { Term(factor($0, $1, index)) })
    case .gated(let a, let c, let activation): return gated(a, c, activation, index)
    case .softmax(let z): return softmax(z, index)
    case .choice(let p, let policy): return choice(p, policy, index)
    case .tokens(let choice, let expert): return tokens(choice, expert, index)
    case .weights(let p, let choice, let policy): return weights(p, choice, policy, index)
    case .combine(let gate, let values): return combine(gate, values, index)
    case .sharedOutput(let output): return try sharedOutput(output, index)
    case .parts(let parts): return try self.parts(parts, index)
    case .logits(let z, let softcap): return logits(z, softcap, index)
    case .routerLogits(let gates): return routerLogits(gates, index)
    case .loss(let logits): return loss(logits, index)
    case .balance(let balance): return self.balance(balance)
    case .lossCurve(let loss, let balance): return .sum([("loss", loss), ("aux_loss", balance)].map { Term(factor($0, $1, [index[0]])) })
    case .lossGradient(let z, let softcap): return lossGradient(z, softcap, index)
    case .inputGradient(let gradient): return try inputGradient(gradient, index)
    case .normGradient(let norm, let dy, let beside): return try normGradient(norm, dy, beside, index)
    case .attentionGradient(let role, let inputs, let output, let gradient):
      return attentionGradient(role, inputs, output, gradient, index)
    case .rotaryGradient(let dy, let width): return rotary(dy, "dy", width, index, isBack: true)
    case .gatedGradient(let ofUp, let dh, let a, let c, let activation): return gatedGradient(ofUp, dh, a, c, activation, index)
    case .sharedHiddenGradient(let rows, let q, let dy, let branch): return try sharedHiddenGradient(rows, q, dy, branch, index)
    case .expertOutputGradient(let rows, let dy): return expertOutputGradient(rows, dy, index)
    case .expertSum(let experts, let others): return expertSum(experts, others, index)
    case .weightsGradient(let gradient): return try weightsGradient(gradient, index)
    case .routerGradient(let gradient): return routerGradient(gradient, index)
    case .matrixGradient(let readings): return .sum(matrixGradient(readings, index))
    case .biasGradient(let readings): return biasGradient(readings, index)
    case .gainGradient(let norm, let dy): return gainGradient(norm, dy, index)
    case .embeddingGradient(let dy, let scale, let head): return embeddingGradient(dy, scale, head, index)
    case .branchGradient(let isA, let branch, let reading): return try branchGradient(isA, branch, reading, index)
    case .moment(let order, let gradient): return moment(order, gradient, index)
    case .update(let weight, let first, let second): return try update(weight, first, second, index)
    }
  }

  private func parts(_ parts: [Formula.Part], _ index: [Int]) throws -> Form {
    // A loss has an element an adapter; a value of tokens belongs to its row's.
    let owner = index.count == 1 ? index[0] : sequences[index[0]].adapter
    guard let part = parts.first(where: { $0.adapter == owner }) else { return .nothing("there is no router") }
    return try form(part.formula, index)
  }
}
