import Traces

/// Where in a run a reader stands, and how far a step goes.
struct Walk {
  /// How far a step goes.
  enum Level: Int, CaseIterable {
    /// From phase to phase: forward, backward, gradients of parameters, optimizer.
    case model
    /// From block to block.
    case block
    /// From layer to layer of a block.
    case layer
    /// From tensor to tensor.
    case operation

    var text: String { "\(self)" }
  }

  /// The tensors in the order of the run, each with its phase, block and layer.
  private let keys: [[String]]
  /// The number of the tensor that the reader stands at: the first of the unit.
  private(set) var position = 0
  /// How far a step goes.
  private(set) var level = Level.operation

  init(_ tensors: [Provenance]) { keys = tensors.map(Self.key) }

  var count: Int { keys.count }

  /// The tensors of the unit that the reader stands in.
  var unit: Range<Int> { unit(around: position) }

  /// What the unit is called: `forward · layers.0 · self_attn`.
  var title: String { keys[position].prefix(level == .operation ? 3 : level.rawValue + 1).filter { !$0.isEmpty }.joined(separator: " · ") }

  /// Goes on to the beginning of the next unit; false at the end.
  mutating func next() -> Bool {
    let end = unit.upperBound
    guard end < count else { return false }
    position = end
    return true
  }

  /// Goes back to the beginning of the unit before; false at the beginning.
  mutating func back() -> Bool {
    let begin = unit.lowerBound
    guard begin > 0 else { return false }
    position = unit(around: begin - 1).lowerBound
    return true
  }

  /// Smaller steps; false where there are none.
  mutating func into() -> Bool { change(by: 1) }

  /// Larger steps; false where there are none.
  mutating func out() -> Bool { change(by: -1) }

  mutating func go(to tensor: Int) { (position, level) = (tensor, .operation) }

  private mutating func change(by step: Int) -> Bool {
    guard let new = Level(rawValue: level.rawValue + step) else { return false }
    level = new
    position = unit.lowerBound
    return true
  }

  private func unit(around index: Int) -> Range<Int> {
    if level == .operation { return index..<index + 1 }
    let key = keys[index].prefix(level.rawValue + 1)
    func isSame(_ other: Int) -> Bool { keys[other].prefix(level.rawValue + 1) == key }
    var (begin, end) = (index, index + 1)
    while begin > 0, isSame(begin - 1) { begin -= 1 }
    while end < count, isSame(end) { end += 1 }
    return begin..<end
  }

  /// Phase, block and layer of a tensor.
  private static func key(_ tensor: Provenance) -> [String] {
    let isParameter = tensor.phase == .backward && !tensor.isPoint
    let phase = isParameter ? "gradients" : tensor.phase.rawValue
    let parts = tensor.name.split(separator: ".").map(String.init)
    guard let layers = parts.firstIndex(of: "layers"), layers + 2 < parts.count else {
      let ends: Set<String> = ["model", "grad", "output", "after", "exp_avg", "exp_avg_sq", "weight", "adapter", "mixlora", "base_model"]
      let block = parts.filter { !ends.contains($0) && Int($0) == nil }.joined(separator: ".")
      return [phase, block, ""]
    }
    return [phase, "layers.\(parts[layers + 1])", parts[layers + 2]]
  }
}
