/// A piece of a template.
struct Token: Sendable {
  /// What a piece is.
  enum Kind: Equatable, Sendable {
    /// Text outside of tags.
    case data(Scalars)
    case blockBegin, blockEnd, variableBegin, variableEnd
    case name(String)
    case string(Scalars)
    case integer(Int)
    case float(Double)
    /// `==`, `(`, `|` and the like.
    case sign(String)
    case end
  }

  let kind: Kind
  let line: Int

  /// The piece in the words of a message.
  var description: String {
    switch kind {
    case .data: "text"
    case .blockBegin: "'{%'"
    case .blockEnd: "the end of the tag"
    case .variableBegin: "'{{'"
    case .variableEnd: "'}}'"
    case .name(let name): "'\(name)'"
    case .string: "a string"
    case .integer(let value): "\(value)"
    case .float(let value): "\(value)"
    case .sign(let sign): "'\(sign)'"
    case .end: "the end of the template"
    }
  }
}
