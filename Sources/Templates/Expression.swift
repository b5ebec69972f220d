/// A part of a template that has a value.
final class Expression: Sendable {
  /// A binary operator.
  enum Operator: String, Sendable {
    case add = "+", subtract = "-", multiply = "*", divide = "/", floorDivide = "//", modulo = "%", power = "**"
  }

  /// A comparison.
  enum Comparison: String, Sendable {
    case equal = "==", unequal = "!=", less = "<", lessOrEqual = "<=", greater = ">", greaterOrEqual = ">=", isIn = "in", isNotIn = "not in"
  }

  /// What stands between the parentheses of a call.
  struct Arguments: Sendable {
    var positional: [Expression] = []
    var named: [(name: String, value: Expression)] = []
    /// Behind `*`.
    var more: Expression?
    /// Behind `**`.
    var moreNamed: Expression?

    var all: [Expression] { positional + named.map(\.value) + [more, moreNamed].compactMap { $0 } }
  }

  /// The forms of expressions.
  enum Kind: Sendable {
    case none, bool(Bool), integer(Int), float(Double), string(Scalars)
    case name(String)
    case list([Expression]), tuple([Expression]), dict([(key: Expression, value: Expression)])
    case attribute(Expression, String)
    case item(Expression, Expression)
    case slice(Expression?, Expression?, Expression?)
    case call(Expression, Arguments)
    /// Without a value it is the beginning of a chain that a block is put through.
    case filter(Expression?, String, Arguments)
    case test(Expression, String, Arguments)
    case not(Expression), negative(Expression), positive(Expression)
    case and(Expression, Expression), or(Expression, Expression)
    case binary(Operator, Expression, Expression)
    case concatenation([Expression])
    case comparison(Expression, [(Comparison, Expression)])
    case conditional(test: Expression, then: Expression, otherwise: Expression?)
  }

  let kind: Kind
  let line: Int
  /// Expressions that lie inside of each other, this one included.
  let depth: Int

  private static let mostDepth = 200

  /// - Throws: ``TemplateError`` for an expression that is nested too deeply: it is evaluated and freed by recursion.
  init(_ kind: Kind, line: Int) throws {
    self.kind = kind
    self.line = line
    depth = 1 + (Self.parts(of: kind).map(\.depth).max() ?? 0)
    guard depth <= Self.mostDepth else { throw TemplateError("an expression nested more than \(Self.mostDepth) deep", line: line) }
  }

  private static func parts(of kind: Kind) -> [Expression] {
    switch kind {
    case .none, .bool, .integer, .float, .string, .name: []
    case .list(let parts), .tuple(let parts), .concatenation(let parts): parts
    case .dict(let pairs): pairs.flatMap { [$0.key, $0.value] }
    case .attribute(let value, _), .not(let value), .negative(let value), .positive(let value): [value]
    case .item(let left, let right), .and(let left, let right), .or(let left, let right), .binary(_, let left, let right): [left, right]
    case .slice(let start, let stop, let step): [start, stop, step].compactMap { $0 }
    case .call(let value, let arguments), .test(let value, _, let arguments): [value] + arguments.all
    case .filter(let value, _, let arguments): (value.map { [$0] } ?? []) + arguments.all
    case .comparison(let first, let others): [first] + others.map(\.1)
    case .conditional(let test, let then, let otherwise): [test, then] + (otherwise.map { [$0] } ?? [])
    }
  }
}
