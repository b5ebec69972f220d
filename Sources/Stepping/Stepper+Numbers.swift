import Tensors
import Traces

// Numbers of a run, and of what it reads.
extension Stepper {
  /// What a run reads and does not form: a weight, or a tensor of the batch.
  struct Given {
    let kind: String
    let shape: [Int]
    /// A row by its number; of a vector all of it.
    let row: (_ number: Int) throws -> [Double]
  }

  func given(_ name: String) -> Given? {
    let run = run
    if let shape = run.weightShape(name) { return Given(kind: "a weight", shape: shape) { try run.weightRow(name, $0) } }
    guard let (shape, values) = run.batch.tensor(name), let width = shape.last else { return nil }
    return Given(kind: "a tensor of the batch", shape: shape) { n in values[n * width..<(n + 1) * width].map { Double($0) } }
  }

  /// A number, or the beginning of a tensor.
  func show(_ what: String) throws -> [String] {
    let (asked, run) = (try parsed(what), run)
    let given = given(asked.name)
    guard let shape = given?.shape ?? run.shape(of: asked.name) else { throw unknown(asked.name) }
    let width = shape.last ?? 1
    func row(_ n: Int) throws -> [Double] { try given?.row(n) ?? run.values(of: asked.name, in: n * width..<(n + 1) * width) }
    if asked.index.isEmpty, shape.reduce(1, *) != 1 { return try text.table(asked.name, shape, given?.kind, row: row) }
    let one = try inside(asked, shape)
    let number = zip(shape, one.index).dropLast().reduce(0) { $0 * $1.0 + $1.1 }
    return ["\(one) = \(text.number(try row(number)[one.index.last ?? 0]))"]
  }

  /// The numbers that one is formed of.
  func why(_ what: String) throws -> [String] {
    let asked = try parsed(what)
    if let given = given(asked.name) { return try show(what) + ["  \(given.kind): the run reads it and does not form it"] }
    let element = try element(what)
    return text.lines(
      of: try Explainer(run).why(element), isPatched: patches.contains { $0.name == element.name && $0.index == element.index })
  }

  /// An element of the run that there is.
  func element(_ what: String) throws -> RunElement {
    let asked = try parsed(what)
    if let given = given(asked.name) { throw CommandError(description: "found '\(asked)', \(given.kind); expected an element of the run") }
    guard let shape = run.shape(of: asked.name) else { throw unknown(asked.name) }
    return try inside(asked, shape)
  }

  /// A name's own spelling: a module's is that of its output.
  func spelled(_ name: String) -> String { run.shape(of: name) == nil && run.shape(of: name + ".output") != nil ? name + ".output" : name }

  private func parsed(_ what: String) throws -> RunElement {
    guard let element = RunElement(parsing: what) else { throw CommandError(description: "found '\(what)'; expected NAME or NAME[i,j]") }
    return RunElement(spelled(element.name), element.index)
  }

  /// An element inside a tensor: `NAME[i,j]` of (B,T,C) is token i = b · T + t, and of a single number the name will do.
  private func inside(_ element: RunElement, _ shape: [Int]) throws -> RunElement {
    var index = element.index
    if index.isEmpty, shape.allSatisfy({ $0 == 1 }) { index = shape.map { _ in 0 } }
    if index.count == 2, shape.count == 3, shape[1] > 0 { index = [index[0] / shape[1], index[0] % shape[1], index[1]] }
    guard index.count == shape.count, zip(index, shape).allSatisfy({ $0 < $1 }) else {
      throw CommandError(
        description: "found '\(element)'; expected an index inside \(text.shape(shape)), one number an axis, counted from 0")
    }
    return RunElement(element.name, index)
  }
}
