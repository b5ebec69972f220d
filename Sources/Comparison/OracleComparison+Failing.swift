import Checkpoints
import Conformance
import Decoders
import Layers
import Tensors
import Traces

// The first wrong operation with the numbers of that very call, for whoever wants to mend it by itself.
extension OracleComparison {
  /// What the first wrong tensor is formed from, in the candidate's own numbers where it has them, what it should be and what it is; nil
  /// where no single operation forms it (a decision, what several steps of the optimizer leave), or where the norm does not show the error.
  ///
  /// Values of tokens are the rows of real tokens, (N,width), in the order of the batch, and an expert's tokens are numbers of such rows.
  func failingOperation(_ target: TensorJudgement) throws -> FailingOperation? {
    guard let provenance = order[target.name], steps.count < 2 || provenance.phase != .optimizer else { return nil }
    let wanted = Set([target.name] + provenance.inputs.map(\.name))
    let run = try localRun(CauseFinder<Exact>.Trial(), seeing: Set(wanted.map { HookPoint(named: $0).path })) { wanted.contains($0) }
    guard let (ours, found) = run[target.name], let found else { return nil }
    let provenances = try Provenances(model.decoder, hasBaseRows: true)
    var inputs: [FailingOperation.Input] = []
    for input in provenance.inputs {
      switch input.source {
      case .point(let name):
        if let rows = decision(name) {
          inputs.append(integers(name, rows.values, input.letter, width: rows.width))
        } else if let (own, theirs) = run[name] {
          // As in the run: what is not finite took no one's place, and what is wrong is not what it is formed of.
          let isOther = provenance.operation == .output && candidate.tensors[name] == nil
          let values = theirs.flatMap { $0.allSatisfy(\.isFinite) && !isOther ? $0 : nil } ?? own
          inputs.append(.init(name: name, shape: shape(name, values.count), values: values, elementType: .float64, meaning: input.letter))
        }
      case .weight(let name):
        guard let (shape, values) = try weight(name, provenances) else { continue }
        inputs.append(.init(name: name, shape: shape, values: values, elementType: .float64, meaning: input.letter))
      case .batch(let name): inputs += ofTokens(name)
      }
    }
    inputs += angles(provenance.formula)
    var attributes = provenance.formula.numbers
    if case .update = provenance.formula {
      attributes += [("learning_rate", steps.learningRate), ("weight_decay", steps.weightDecay)]
    }
    let distance = Distance(of: found, from: ours, width: target.shape.last ?? 1)
    let budget = request.mode == .exact ? 0 : target.localBudget ?? target.budget
    var operation = FailingOperation(
      name: target.name, kind: target.kind, equation: target.equation, attributes: attributes, inputs: inputs,
      shape: shape(target.name, ours.count), expected: ours, found: found, budget: budget)
    if distance.relative <= budget, found.allSatisfy(\.isFinite) {
      guard let rowBudget = records[target.name].flatMap({ rowBudget($0, distance, roundoff(of: target.name)) }),
        distance.largestRow > rowBudget
      else { return nil }
      operation.rowBudget = rowBudget
    }
    return operation
  }

  /// The sizes of so many packed values.
  private func shape(_ name: String, _ count: Int) -> [Int] {
    guard let shape = shapes[name], shape.count > 1, let width = shape.last, width > 0 else { return [count] }
    return [count / width, width]
  }

  private func integers(_ name: String, _ values: [Int], _ meaning: String, width: Int? = nil) -> FailingOperation.Input {
    .init(
      name: name, shape: width.map { [values.count / max(1, $0), $0] } ?? [values.count], values: values.map { Double($0) },
      elementType: .int64, meaning: meaning)
  }

  /// A choice (n,S) as the run followed it, or the rows of an expert's tokens.
  private func decision(_ name: String) -> (values: [Int], width: Int?)? {
    guard let owner = model.layout.owner(ofPath: name) else { return nil }
    let slots = owner.mixture.policy.slots(of: owner.mixture.experts)
    if let choice = inForce[name] { return (choice.map { Int($0) }, slots) }
    guard let range = name.firstRange(of: ".experts."), name.hasSuffix(".tokens"),
      let expert = Int(name[range.upperBound...].prefix { $0 != "." }),
      let choice = inForce["\(name[..<range.lowerBound]).moe_gate.choice"]
    else { return nil }
    let first = model.layout.places(of: owner).startIndex
    return (CandidateRows<B>.tokens(of: expert, in: choice, slots: slots).map { $0 + first }, nil)
  }

  private func weight(_ name: String, _ provenances: Provenances<B>) throws -> (shape: [Int], values: [Double])? {
    if let trained = provenances.trained[name] {
      let view = trained.view(of: trained.parameter.value)
      return (view.shape.sizes, try model.backend.download(view))
    }
    guard case .frozen(let matrix)? = provenances.weights[name] else { return nil }
    return (matrix.shape.sizes, model.backend.numbers(of: matrix))
  }

  /// A tensor of the batch, row by row of real tokens.
  private func ofTokens(_ name: String) -> [FailingOperation.Input] {
    let sequences = model.packed.order.map { (row: model.batch.sequences[$0], columns: model.batch.realColumns[$0]) }
    switch name {
    case "input_ids": return [integers(name, sequences.flatMap { $0.row.ids.map { Int($0) } }, "the token of each row")]
    case "labels":
      let labels = sequences.flatMap { $0.row.labels.map { $0.map { Int($0) } ?? -100 } }
      return [integers(name, labels, "the token that each row predicts, -100 where none counts")]
    case "adapter":
      let owners = sequences.flatMap { sequence in sequence.columns.map { _ in sequence.row.adapter ?? -1 } }
      return [integers(name, owners, "the adapter of each row, -1 for none")]
    default:  // which rows see each other
      return [
        integers("positions", sequences.flatMap { Array($0.columns) }, "the position of each row"),
        integers("sequence_offsets", model.packed.plan.offsets.map { Int($0) }, "where sequences begin, and N"),
      ]
    }
  }

  /// cos and sin of each row's planes, where a formula turns them.
  private func angles(_ formula: Formula) -> [FailingOperation.Input] {
    let width: Int
    switch formula {
    case .rotary(_, let headWidth), .rotaryGradient(_, let headWidth): width = headWidth
    default: return []
    }
    guard let block = model.decoder.blocks.first as? SequentialBlock<B> else { return [] }
    let positions = model.packed.order.flatMap { Array(model.batch.realColumns[$0]) }
    let turns = positions.flatMap { position in
      (0..<width / 2).map { block.attention.layer.rotary.turn(plane: $0, position: position, limit: model.packed.positionLimit) }
    }
    return [integers("positions", positions, "the position of each row")]
      + [("cos", turns.map(\.cos)), ("sin", turns.map(\.sin))].map { name, values in
        .init(name: name, shape: [positions.count, width / 2], values: values, elementType: .float64, meaning: "\(name) of plane j")
      }
  }
}

extension RoundingBackend {
  /// The numbers of a frozen weight, row after row.
  func numbers(of matrix: Exact.FrozenMatrix) -> [Double] {
    matrix.shape.isVector ? (try? exact.download(exact.vector(matrix))) ?? [] : decoded(matrix)
  }
}
