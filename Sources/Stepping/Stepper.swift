import Decoders
import Platform
import Tensors
import Traces

/// A walk through a run of a model, by commands: `mixlora step` without its terminal.
///
/// The run is recorded once, so that going back costs nothing; a patch runs again from what the batch says.
public final class Stepper<B: Backend> {
  /// What a command that cannot be carried out has to say.
  public struct CommandError: Error, CustomStringConvertible {
    /// What is wrong, and what would be right.
    public let description: String
  }

  /// What came of a command.
  public enum Answer: Equatable, Sendable {
    /// Lines to show.
    case lines([String])
    /// The end.
    case quit
  }

  private let rerun: (_ patches: [Patch]) throws -> RecordedRun<B>
  private let original: RecordedRun<B>
  private var run: RecordedRun<B>
  private var patches: [Patch] = []
  private var walk: Walk
  private let text: StepText

  /// Runs the batch and stands at the first tensor.
  ///
  /// - Parameters:
  ///   - digits: digits that count of a number; nil for all of them.
  ///   - folder: where the numbers of the run lie meanwhile.
  /// - Throws: what the device reports.
  public init(
    _ decoder: Decoder<B>, _ batch: TraceBatch, optimizer: OptimizerNumbers = OptimizerNumbers(), digits: Int? = nil,
    in folder: String, on backend: B
  ) throws {
    rerun = { try RecordedRun(decoder, batch, patches: $0, optimizer: optimizer, in: folder, on: backend) }
    original = try rerun([])
    run = original
    walk = Walk(original.names.compactMap(original.provenance(of:)))
    text = StepText(digits: digits)
  }

  /// What is shown at the beginning.
  public var greeting: [String] {
    let batch = run.batch
    return [
      "\(run.names.count) tensors of a run: \(batch.rows) × \(batch.columns) tokens, "
        + (batch.hasLabels ? "forward, backward and one step of AdamW." : "forward; without labels there is no way back."),
      "'next' goes on, 'why NAME[i,j]' explains a number, 'help' lists the rest.", "",
    ] + here
  }

  /// The name of every command with its arguments and what it does.
  public static var commands: [(usage: String, text: String)] {
    [
      ("next [N], back [N]", "go on or back by N units (1); Enter repeats"),
      ("into, out", "smaller or larger units: model, block, layer, operation"),
      ("goto NAME", "go to a tensor"), ("where", "where you are, and how it is formed"), ("list [GLOB]", "the tensors of the run"),
      ("print NAME[i,j]", "a number, or the tensor (by default this one)"),
      ("why NAME[i,j]", "the numbers that it is the sum or product of"),
      ("patch NAME[i,j] VALUE", "put another number there and run again"), ("unpatch", "take all patches back"),
      ("diff", "what the patches changed, point by point"), ("help, quit", ""),
    ]
  }

  /// Carries out a command; an empty line or one that begins with # does nothing.
  ///
  /// - Throws: `CommandError`, and what the device reports.
  public func perform(_ line: String) throws -> Answer {
    let words = line.split(whereSeparator: \.isWhitespace).map(String.init)
    guard let command = words.first, !command.hasPrefix("#") else { return .lines([]) }
    let arguments = Array(words.dropFirst())
    func expect(_ counts: ClosedRange<Int>, _ usage: String) throws {
      guard counts.contains(arguments.count) else { throw CommandError(description: "found '\(line)'; expected '\(usage)'") }
    }
    switch command {
    case "next", "back":
      try expect(0...1, "\(command) [N]")
      return .lines(try move(command == "next", arguments.first))
    case "into", "out":
      try expect(0...0, command)
      let isDone = command == "into" ? walk.into() : walk.out()
      return .lines(isDone ? here : ["There are no \(command == "into" ? "smaller" : "larger") units than \(walk.level.text)."])
    case "goto":
      try expect(1...1, "goto NAME")
      walk.go(to: try position(of: arguments[0]))
      return .lines(here)
    case "where":
      try expect(0...0, "where")
      return .lines(here)
    case "list":
      try expect(0...1, "list [GLOB]")
      return .lines(try list(arguments.first).flatMap(text.folded))
    case "print":
      try expect(0...1, "print NAME[i,j]")
      return .lines(try show(named(arguments.first ?? "")))
    case "why":
      try expect(0...1, "why NAME[i,j]")
      return .lines(text.lines(of: try Explainer(run).why(try element(named(arguments.first ?? "")))))
    case "patch":
      try expect(2...2, "patch NAME[i,j] VALUE")
      return .lines(try patch(try element(arguments[0]), arguments[1]))
    case "unpatch":
      try expect(0...0, "unpatch")
      (patches, run) = ([], original)
      return .lines(["The run is as it was."])
    case "diff":
      try expect(0...0, "diff")
      return .lines(difference().flatMap(text.folded))
    case "help":
      return .lines(Self.commands.map { text.aligned($0.usage, 24) + $0.text }.flatMap(text.folded))
    case "quit", "exit": return .quit
    default:
      throw CommandError(
        description:
          "found the command '\(command)'; expected one of next, back, into, out, goto, where, list, print, why, patch, unpatch, diff, help, quit"
      )
    }
  }

  // MARK: Where

  private var here: [String] {
    let unit = walk.unit
    let head = "[\(unit.lowerBound + 1)/\(walk.count)] \(walk.title)  (\(walk.level.text))"
    if walk.level != .operation {
      let shown = unit.prefix(text.listed).map { line(run.names[$0]) }
      return [head] + shown + (unit.count > shown.count ? ["  … and \(unit.count - shown.count) more: list"] : [])
    }
    let name = run.names[unit.lowerBound]
    guard let provenance = run.provenance(of: name) else { return [head, name] }
    return [head] + text.lines(of: provenance, run)
  }

  private func move(_ isForward: Bool, _ count: String?) throws -> [String] {
    guard let count = count.map({ Int($0) }) ?? 1, count >= 1 else {
      throw CommandError(description: "found '\(count ?? "")'; expected a number of steps ≥ 1")
    }
    var moved = 0
    while moved < count, isForward ? walk.next() : walk.back() { moved += 1 }
    return (moved < count ? [isForward ? "The run ends here." : "The run begins here."] : []) + here
  }

  /// A name's place in the run; a module's is that of its output.
  private func position(of name: String) throws -> Int {
    if let position = run.names.firstIndex(of: name) ?? run.names.firstIndex(of: name + ".output") { return position }
    throw unknown(name)
  }

  private func unknown(_ name: String) -> CommandError {
    let last = name.split(separator: ".").last.map(String.init) ?? name
    let near = run.names.filter { $0.contains(last) }.prefix(3)
    return CommandError(
      description: "found no tensor '\(name)'; expected one that 'list' has"
        + (near.isEmpty ? "" : ", such as \(near.joined(separator: ", "))"))
  }

  /// What is meant by an index without a name, or by nothing: the tensor that the reader stands at.
  private func named(_ what: String) -> String { what.isEmpty || what.hasPrefix("[") ? run.names[walk.position] + what : what }

  // MARK: Numbers

  private func line(_ name: String) -> String {
    "  " + text.aligned(name, 52) + " " + text.aligned(text.shape(run.shape(of: name) ?? []), 14)
      + (run.provenance(of: name)?.operation.rawValue ?? "")
  }

  private func list(_ pattern: String?) throws -> [String] {
    let names = pattern.map { pattern in run.names.filter { POSIX.matches($0, pattern) } } ?? run.names
    guard !names.isEmpty else {
      throw CommandError(description: "found no tensor that matches '\(pattern ?? "*")'; expected a pattern such as 'model.layers.0.*'")
    }
    return names.map(line)
  }

  private func show(_ what: String) throws -> [String] {
    guard let element = RunElement(parsing: what) else { throw CommandError(description: "found '\(what)'; expected NAME or NAME[i,j]") }
    if element.index.isEmpty, let shape = run.shape(of: element.name), shape.reduce(1, *) != 1 {
      return text.table(element.name, shape, run.values(of: element.name))
    }
    if run.shape(of: element.name) == nil, let shape = run.weightShape(element.name) { return [try weight(element, shape)] }
    let one = try self.element(what)
    return ["\(one) = \(text.number(Explainer(run).value(one.name, one.index)))"]
  }

  /// A weight, which formulas name: its sizes, or an element.
  private func weight(_ element: RunElement, _ shape: [Int]) throws -> String {
    if element.index.isEmpty { return "\(element)  \(text.shape(shape))  a weight; print \(element)[…] for a number" }
    try requireInside(element.index, shape, "\(element)")
    let row = try run.weightRow(element.name, shape.count == 1 ? 0 : element.index[0])
    return "\(element) = \(text.number(row[element.index[shape.count - 1]]))"
  }

  private func requireInside(_ index: [Int], _ shape: [Int], _ what: String) throws {
    guard index.count == shape.count, zip(index, shape).allSatisfy({ $0 < $1 }) else {
      throw CommandError(
        description: "found '\(what)'; expected an index inside \(text.shape(shape)), one number an axis, counted from 0")
    }
  }

  /// An element that there is: `NAME[i,j]` of (B,T,C) is token i = b · T + t, and of a single number the name will do.
  private func element(_ what: String) throws -> RunElement {
    guard let element = RunElement(parsing: what) else { throw CommandError(description: "found '\(what)'; expected NAME[i,j]") }
    guard let shape = run.shape(of: element.name) else { throw unknown(element.name) }
    var index = element.index
    if index.isEmpty, shape.allSatisfy({ $0 == 1 }) { index = shape.map { _ in 0 } }
    if index.count == 2, shape.count == 3, shape[1] > 0 { index = [index[0] / shape[1], index[0] % shape[1], index[1]] }
    try requireInside(index, shape, what)
    return RunElement(element.name, index)
  }

  // MARK: Patches

  private func patch(_ element: RunElement, _ number: String) throws -> [String] {
    guard let value = Double(number) else { throw CommandError(description: "found '\(number)'; expected a number") }
    guard let provenance = run.provenance(of: element.name), provenance.isPoint else {
      throw CommandError(description: "found '\(element.name)', a result that nothing is formed of; expected a point of the run")
    }
    if case .choice(let p, _) = provenance.formula {
      let experts = run.shape(of: p)?.last ?? 0
      guard value == value.rounded(), value >= -1, value < Double(experts) else {
        throw CommandError(description: "found '\(number)'; expected an expert, 0 to \(experts - 1), or -1 for none")
      }
    }
    if case .nothing(let reason) = try Explainer(run).why(element).form {
      throw CommandError(description: "found '\(element)', where nothing is: \(reason); expected an element of the run")
    }
    let before = Explainer(run).value(element.name, element.index)
    let wanted = patches.filter { $0.name != element.name || $0.index != element.index } + [Patch(element.name, element.index, value)]
    do { run = try rerun(wanted) } catch let error as PatchError { throw CommandError(description: error.description) }
    patches = wanted
    return ["\(element): \(text.number(before)) → \(text.number(value)); 'diff' shows what follows"]
  }

  /// Every tensor that differs from the run without patches, in the order of the run.
  private func difference() -> [String] {
    var lines: [String] = []
    for name in run.names {
      guard let shape = run.shape(of: name), let before = original.shape(of: name) else { continue }
      if shape != before {
        lines.append("\(name)  \(text.shape(before)) → \(text.shape(shape))")
        continue
      }
      let (new, old) = (run.values(of: name), original.values(of: name))
      let changed = new.indices.filter { new[$0] != old[$0] && !(new[$0].isNaN && old[$0].isNaN) }
      guard let worst = changed.max(by: { abs(new[$0] - old[$0]) < abs(new[$1] - old[$1]) }) else { continue }
      let element = RunElement(name, text.index(worst, shape))
      let (from, to) = (text.number(old[worst]), text.number(new[worst]))
      let change = from == to ? "\(from), by \(text.number(new[worst] - old[worst]))" : "\(from) → \(to)"
      lines.append("\(element)  \(change)  (\(changed.count) of \(new.count))")
    }
    return lines.isEmpty ? ["Nothing differs."] : lines
  }
}
