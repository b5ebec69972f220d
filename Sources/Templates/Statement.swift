/// What takes a value: a name, an attribute of a namespace, or several of them.
indirect enum Target: Sendable {
  case name(String)
  case attribute(namespace: String, String)
  case tuple([Target])
}

/// A loop.
struct ForLoop: Sendable {
  let target: Target
  let sequence: Expression
  let test: Expression?
  let isRecursive: Bool
  let body: [Statement]
  let otherwise: [Statement]
  let line: Int
}

/// A macro, or the block that a call brings along.
struct MacroDefinition: Sendable {
  let name: String
  let parameters: [String]
  /// Of the last parameters.
  let defaults: [Expression]
  let body: [Statement]
  /// Whether the body names `varargs`, `kwargs` and `caller`: only then it takes them.
  let takesMore: Bool
  let takesMoreNamed: Bool
  let takesCaller: Bool
}

/// A part of a template that is carried out.
enum Statement: Sendable {
  case text(Scalars)
  case output(Expression)
  case set(Target, Expression, line: Int)
  /// The filters form a chain that begins with nothing.
  case setBlock(Target, filters: Expression?, [Statement], line: Int)
  case choice([(test: Expression, body: [Statement])], otherwise: [Statement])
  case loop(ForLoop)
  case macro(MacroDefinition)
  case call(Expression, MacroDefinition)
  case filter(Expression, [Statement])
  case with([(Target, Expression)], [Statement], line: Int)
  case generation([Statement])
  case block([Statement], isScoped: Bool)
  case autoescape(Expression, [Statement])
  case breakLoop, continueLoop
  /// A tag that would read another template.
  case otherTemplate(tag: String, line: Int)
}
