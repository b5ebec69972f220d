import Checkpoints
import Conformance
import Decoders
import Tensors
import Traces

// The first wrong operation with the numbers of that very call, for whoever wants to mend it by itself.
extension OracleComparison {
  /// What the first wrong tensor is formed from, in the candidate's own numbers where it has them, what it should be and what it is.
  ///
  /// Values of tokens are the rows of real tokens, (N,width), in the order of the batch.
  func failingOperation(_ target: TensorJudgement) throws -> FailingOperation? {
    guard let provenance = order[target.name] else { return nil }
    let inputs = provenance.inputs
    let wanted = Set([target.name] + inputs.map(\.name))
    let run = try localRun(CauseFinder<Exact>.Trial()) { wanted.contains($0) }
    guard let (ours, found) = run[target.name], let found else { return nil }
    let provenances = Provenances(model.decoder, hasBaseRows: true)
    func elementType(_ name: String) -> ElementType { candidate.tensors[name]?.entry.elementType ?? .float64 }
    func shape(_ name: String, _ count: Int) -> [Int] {
      let width = max(1, records[name]?.shape.last ?? widths[name] ?? count)
      return count % width == 0 && width < count ? [count / width, width] : [count]
    }
    var read: [FailingOperation.Input] = []
    for input in inputs {
      switch input.source {
      case .point(let name):
        guard let (own, theirs) = run[name] else { continue }
        let values = theirs ?? own
        let type = elementType(name)
        read.append(
          .init(name: name, shape: shape(name, values.count), values: values, elementType: type.isFloatingPoint ? type : .float64))
      case .weight(let name):
        if let trained = provenances.trained[name] {
          let view = trained.view(of: trained.parameter.value)
          read.append(.init(name: name, shape: view.shape.sizes, values: try model.backend.download(view), elementType: .float32))
        } else if case .frozen(let matrix)? = provenances.weights[name] {
          read.append(.init(name: name, shape: matrix.shape.sizes, values: model.backend.numbers(of: matrix), elementType: .float32))
        }
      case .batch(let name):
        if name == "labels" || name == "input_ids" {
          let ids = model.packed.order.flatMap { n in
            name == "labels" ? model.batch.sequences[n].labels.map { Double($0 ?? -100) } : model.batch.sequences[n].ids.map { Double($0) }
          }
          read.append(.init(name: name, shape: [ids.count], values: ids, elementType: .int64))
        }
      }
    }
    return FailingOperation(
      name: target.name, kind: target.kind, equation: target.equation, inputs: read, shape: shape(target.name, ours.count), expected: ours,
      found: found, budget: target.localBudget ?? target.budget)
  }
}

extension ElementType {
  /// True for the types of single numbers with a fraction.
  var isFloatingPoint: Bool { [.float64, .float32, .float16, .bfloat16].contains(self) }
}

extension RoundingBackend {
  /// The numbers of a frozen weight, row after row.
  func numbers(of matrix: Exact.FrozenMatrix) -> [Double] {
    matrix.shape.isVector ? (try? exact.download(exact.vector(matrix))) ?? [] : decoded(matrix)
  }
}
