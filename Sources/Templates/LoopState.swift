/// The variable `loop`.
final class LoopState {
  /// Its own text of every element for a list of elements, in a loop that is recursive.
  let recursion: ((Value, _ depth: Int) throws -> Value)?
  /// How many loops of its own are around it.
  let depth0: Int
  private(set) var index0 = -1
  private let iteration: Iteration
  /// The element behind the current one, where somebody has asked.
  private var ahead: [Value] = []
  private var isOver = false
  private var previous: Value?
  private var current: Value?
  private var knownLength: Int?
  private var lastChanged: Items?

  /// How many values lie inside of each other.
  var depth: Int { max(iteration.depth, lastChanged?.depth ?? 0) + 1 }

  /// A loop over `sequence`, or over those of its elements that `iteration` gives.
  init(
    _ sequence: Value, _ iteration: Iteration, isFiltered: Bool, depth0: Int, recursion: ((Value, Int) throws -> Value)?, _ budget: Budget
  ) throws {
    self.iteration = iteration
    self.depth0 = depth0
    self.recursion = recursion
    if !isFiltered { knownLength = try sequence.length(budget) }
  }

  /// Goes on to the next element.
  func next() throws -> Value? {
    guard let element = try ahead.isEmpty ? pull() : ahead.removeFirst() else { return nil }
    index0 += 1
    previous = current
    current = element
    return element
  }

  private func pull() throws -> Value? {
    if isOver { return nil }
    let element = try iteration.next()
    if element == nil { isOver = true }
    return element
  }

  private func peek() throws -> Value? {
    if ahead.isEmpty, let element = try pull() { ahead.append(element) }
    return ahead.first
  }

  /// The number of elements; those of a generator are all formed for it.
  func length(_ budget: Budget) throws -> Int {
    if let knownLength { return knownLength }
    while let element = try pull() {
      try budget.require(ahead.count * MemoryLayout<Value>.stride)
      ahead.append(element)
    }
    let length = ahead.count + index0 + 1
    knownLength = length
    return length
  }

  /// `loop.name`; nil if there is no such attribute.
  func attribute(_ name: String, _ budget: Budget) throws -> Value? {
    switch name {
    case "index": .int(index0 + 1)
    case "index0": .int(index0)
    case "revindex": .int(try length(budget) - index0)
    case "revindex0": .int(try length(budget) - index0 - 1)
    case "first": .bool(index0 == 0)
    case "last": .bool(try peek() == nil)
    case "length": .int(try length(budget))
    case "depth": .int(depth0 + 1)
    case "depth0": .int(depth0)
    case "previtem": index0 == 0 ? .undefined(.hint("there is no previous item")) : previous ?? .none
    case "nextitem": try peek() ?? .undefined(.hint("there is no next item"))
    case "cycle":
      .function(
        Function("cycle") { [self] _, arguments in
          guard !arguments.positional.isEmpty else { throw TemplateError("no items for cycling given") }
          return arguments.positional[index0 % arguments.positional.count]
        })
    case "changed": .function(Function("changed") { [self] in try changed($1.positional, $0.budget) })
    default: nil
    }
  }

  private func changed(_ values: [Value], _ budget: Budget) throws -> Value {
    if let last = lastChanged?.values, last.count == values.count, try zip(last, values).allSatisfy({ try $0.equals($1, budget) }) {
      return .bool(false)
    }
    lastChanged = try Items(values, budget)
    return .bool(true)
  }

  /// Lets go of what `changed` remembers, which may be the loop itself.
  func finish() { lastChanged = nil }
}
