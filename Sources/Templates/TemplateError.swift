/// What is wrong with a template, or with what it was given: the line, and one sentence.
public struct TemplateError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The line of the template, counted from 1; 0 where none is known.
  public internal(set) var line: Int
  /// What went wrong, with the names that the template uses.
  public let problem: String
  /// Whether the template itself said so, by `raise_exception`.
  public let isRaised: Bool

  init(_ problem: String, line: Int = 0, isRaised: Bool = false) {
    self.line = line
    self.problem = problem
    self.isRaised = isRaised
  }

  /// Line and problem.
  public var description: String { line > 0 ? "line \(line): \(problem)" : problem }
}
