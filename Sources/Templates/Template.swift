import JSON

/// A template in the language of chat templates: Jinja as `jinja2` 3.1 has it in its immutable sandbox, set up as transformers does
/// (`trim_blocks`, `lstrip_blocks`, `break` and `continue`, `tojson` without HTML, `raise_exception`, `strftime_now`, `generation`).
///
///     let template = try Template("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
///     try template.render(["messages": [["role": "user", "content": "Hi"]]]).text       // "user: Hi\n"
///
/// Values are Python's: how they print, compare, add up and what they refuse. A template reaches what it is given and nothing else, and
/// its steps, memory and nesting are bounded, so that a hostile one ends in an error.
public struct Template: Sendable {
  /// What came out.
  public struct Rendering: Equatable, Sendable {
    /// The text.
    public let text: String
    /// The parts that `{% generation %}` blocks wrote, as byte offsets into the text.
    public let generations: [Range<Int>]
  }

  /// Bounds of one rendering, beside which every byte of the values adds its share.
  public struct Limits: Sendable {
    /// Expressions evaluated, elements visited and the like.
    public var steps = 1_500_000
    /// Bytes that texts and lists of the template hold at the same time.
    public var bytes = 16 << 20
    /// Characters of a template.
    static let source = 1 << 19

    /// The defaults: far beyond what templates need, and reached within a second.
    public init() {}
  }

  private let body: [Statement]

  /// Reads a template.
  ///
  /// - Throws: ``TemplateError`` with the line, for what `jinja2` would not compile and what is not built.
  public init(_ source: String) throws {
    guard source.unicodeScalars.count <= Limits.source else {
      throw TemplateError("a template of more than \(Limits.source) characters")
    }
    var lexer = Lexer(source)
    var parser = Parser(try lexer.allTokens())
    body = try parser.template()
  }

  /// Fills the template in.
  ///
  /// - Parameters:
  ///   - values: what the template sees, by name.
  ///   - now: the local time in the form that `strftime` is asked for; nil where the form asks for too much.
  /// - Throws: ``TemplateError`` for whatever `jinja2` raises, for integers beyond 64 bits, and beyond `limits`.
  public func render(
    _ values: [(name: String, value: JSON)], limits: Limits = Limits(), now: @escaping (String) -> String? = Clock.now
  ) throws -> Rendering {
    let interpreter = Interpreter(limits: limits, now: now)
    return try interpreter.render(body, values)
  }
}
