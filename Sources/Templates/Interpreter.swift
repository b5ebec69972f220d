import JSON

/// Carries a template out.
///
/// Statements are in `Interpreter+Statements.swift`, expressions in `Interpreter+Expressions.swift`, and what an attribute is in
/// `Attributes.swift`.
final class Interpreter {
  let budget: Budget
  let now: (String) -> String?
  /// The line that is being carried out, for errors.
  var line = 0
  /// Texts that are being written: the rendering itself, and inside of it what a macro or block writes.
  private var outputs: [TextBuilder]
  /// Whether something was written to the rendering, be it nothing: only then transformers notes what `generation` blocks write.
  private var hasWritten = false
  private var generations: [Range<Int>] = []
  private var level = 0
  /// What may hold itself, to be taken apart at the end.
  private var namespaces: [Namespace] = []
  private var scopes: [Scope] = []

  /// Expressions and statements that may lie inside of each other while they are carried out, macros that call themselves included.
  private static let mostLevels = 400

  init(limits: Template.Limits, now: @escaping (String) -> String?) {
    self.now = now
    budget = Budget(steps: limits.steps, bytes: limits.bytes)
    outputs = [TextBuilder(budget)]
  }

  deinit {
    for namespace in namespaces { namespace.clear() }
    for scope in scopes { scope.clear() }
  }

  /// The whole template.
  ///
  /// - Throws: ``TemplateError`` with the line.
  func render(_ body: [Statement], _ values: [(name: String, value: JSON)]) throws -> Template.Rendering {
    do {
      let context = Scope(parent: nil)
      for (name, value) in values {
        budget.grant(value.size)
        context.set(name, try Value(value))
      }
      root = Scope(parent: context)
      _ = try execute(body, root)
    } catch var error as TemplateError {
      if error.line == 0 { error.line = line }
      throw error
    }
    return rendering
  }

  /// The frame of the template itself.
  private(set) var root = Scope(parent: nil)

  private var rendering: Template.Rendering {
    let scalars = outputs[0].scalars
    var offsets = [0]
    if !generations.isEmpty {
      offsets.reserveCapacity(scalars.count + 1)
      for scalar in scalars { offsets.append(offsets[offsets.count - 1] + UTF8.width(scalar)) }
    }
    return Template.Rendering(
      text: scalars.string,
      generations: generations.map { offsets[$0.lowerBound]..<offsets[min($0.upperBound, scalars.count)] })
  }

  // MARK: Nesting

  /// Carries out something that may lie in itself.
  func nested<Result>(_ body: () throws -> Result) throws -> Result {
    level += 1
    defer { level -= 1 }
    guard level <= Self.mostLevels else { throw TemplateError("the template is carried out more than \(Self.mostLevels) levels deep") }
    try budget.spend()
    return try body()
  }

  /// A namespace, which lives as long as the rendering.
  func namespace() throws -> Namespace {
    try budget.take(256)
    let namespace = Namespace()
    namespaces.append(namespace)
    return namespace
  }

  /// Notes that a macro holds a frame.
  func keep(_ scope: Scope) throws {
    guard scopes.last !== scope else { return }
    try budget.take(256)
    scopes.append(scope)
  }

  // MARK: Output

  func write(_ text: Scalars) throws {
    if outputs.count == 1 { hasWritten = true }
    try outputs[outputs.count - 1].append(text)
  }

  func write(_ value: Value) throws {
    if outputs.count == 1 { hasWritten = true }
    try value.printed(into: &outputs[outputs.count - 1], budget)
  }

  /// What `body` writes, as a text.
  func captured(_ body: () throws -> Void) throws -> Value {
    outputs.append(TextBuilder(budget))
    try body()
    return try outputs.removeLast().value()
  }

  /// Writes what a `generation` block has written, and notes where.
  func writeGeneration(_ text: Value) throws {
    guard case .string(let text) = text else { return }
    if hasWritten {
      let start = outputs[0].scalars.count
      generations.append(start..<start + text.scalars.count)
    }
    try write(text.scalars)
  }
}

extension JSON {
  /// How much there is: bytes of texts, and some for every value.
  fileprivate var size: Int {
    switch self {
    case .null, .bool, .number: 16
    case .string(let text): 16 + text.utf8.count
    case .array(let elements): elements.reduce(16) { $0 + $1.size }
    case .object(let object): object.members.reduce(16) { $0 + 16 + $1.key.utf8.count + $1.value.size }
    }
  }
}
