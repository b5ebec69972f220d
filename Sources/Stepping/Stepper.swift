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

  let rerun: (_ patches: [Patch]) throws -> RecordedRun<B>
  let original: RecordedRun<B>
  var run: RecordedRun<B>
  var patches: [Patch] = []
  private var walk: Walk
  let text: StepText

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

  /// The first tensor of the run with a value that is not finite; nil if there is none.
  public var firstNonFinite: String? { original.firstNonFinite }

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
      ("goto NAME", "go to a tensor; to the first that reads a weight, input_ids or labels"),
      ("where", "where you are, and how it is formed"), ("list [GLOB]", "the tensors of the run"),
      ("print NAME[i,j]", "a number, or the tensor (by default this one); weights and the batch too"),
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
      return .lines(try go(to: arguments[0]) + here)
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
      return .lines(try why(named(arguments.first ?? "")))
    case "patch":
      try expect(2...2, "patch NAME[i,j] VALUE")
      return .lines(try patch(try element(named(arguments[0])), arguments[1]))
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

  /// Goes to a tensor; to a module's output by the module's name, and to the first reader of what no run forms.
  private func go(to name: String) throws -> [String] {
    if let position = run.names.firstIndex(of: spelled(name)) {
      walk.go(to: position)
      return []
    }
    guard let given = given(name) else { throw unknown(name) }
    let readers = run.names.indices.filter { n in run.provenance(of: run.names[n])?.inputs.contains { $0.name == name } ?? false }
    guard let first = readers.first else { throw CommandError(description: "found '\(name)', \(given.kind) that nothing reads") }
    walk.go(to: first)
    return ["\(name)  \(text.shape(given.shape))  \(given.kind), read by \(readers.count) tensors, of which this is the first"]
  }

  func unknown(_ name: String) -> CommandError {
    let last = name.split(separator: ".").last.map(String.init) ?? name
    let near = run.names.filter { $0.contains(last) }.prefix(3)
    return CommandError(
      description: "found no tensor '\(name)'; expected one that 'list' has"
        + (near.isEmpty ? "" : ", such as \(near.joined(separator: ", "))"))
  }

  /// What is meant by an index without a name, or by nothing: the tensor that the reader stands at.
  private func named(_ what: String) -> String { what.isEmpty || what.hasPrefix("[") ? run.names[walk.position] + what : what }

  // MARK: Lists

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
}
