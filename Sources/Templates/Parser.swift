/// Puts the pieces of a template together: a recursive descent, one method a rule.
///
/// Tags are read in `Parser+Statements.swift`, what stands in them in `Parser+Expressions.swift`.
struct Parser {
  private let tokens: [Token]
  private var position = 0
  private var nesting = 0
  /// Loops around this place that `break` may end.
  var loops = 0
  /// Filters and tests that are not known. `jinja2` refuses a template for one, unless a condition of the same frame stands before it:
  /// then it says so where it comes to it.
  var unknown: [TemplateError] = []
  /// Names that were read: how a macro knows whether its body speaks of `caller`.
  var names: Set<String> = []

  private static let mostNesting = 80

  init(_ tokens: [Token]) { self.tokens = tokens }

  var current: Token { tokens[position] }
  var next: Token { tokens[min(position + 1, tokens.count - 1)] }
  var line: Int { current.line }

  /// The whole template.
  mutating func template() throws -> [Statement] {
    let body = try statements(until: [])
    if let first = unknown.first { throw first }
    return body
  }

  func fail(_ problem: String, line: Int? = nil) -> TemplateError { TemplateError(problem, line: line ?? self.line) }

  /// Reads something that may contain its own kind.
  mutating func nested<Result>(_ body: (inout Parser) throws -> Result) throws -> Result {
    nesting += 1
    defer { nesting -= 1 }
    guard nesting <= Self.mostNesting else { throw fail("nested more than \(Self.mostNesting) deep") }
    return try body(&self)
  }

  /// Reads what is a frame of its own, in which a filter that is not known is an error.
  mutating func frame<Result>(_ body: (inout Parser) throws -> Result) throws -> Result {
    let count = unknown.count
    let result = try body(&self)
    if unknown.count > count { throw unknown[count] }
    return result
  }

  // MARK: Pieces

  @discardableResult
  mutating func advance() -> Token {
    let token = current
    if position + 1 < tokens.count { position += 1 }
    return token
  }

  func at(_ sign: String) -> Bool { current.kind == .sign(sign) }

  func at(name: String) -> Bool { current.kind == .name(name) }

  mutating func skip(_ sign: String) -> Bool {
    guard at(sign) else { return false }
    advance()
    return true
  }

  mutating func skip(name: String) -> Bool {
    guard at(name: name) else { return false }
    advance()
    return true
  }

  @discardableResult
  mutating func expect(_ kind: Token.Kind) throws -> Token {
    guard current.kind == kind else {
      throw fail("found \(current.description), expected \(Token(kind: kind, line: 0).description)")
    }
    return advance()
  }

  mutating func expectName() throws -> String {
    guard case .name(let name) = current.kind else { throw fail("found \(current.description), expected a name") }
    advance()
    return name
  }
}
