import Tokenization

/// What samples ask of a tokenizer.
public protocol TextEncoder: Sendable {
  /// The tokens of a text, with the byte after each one's last; no begin or end token is added.
  func tokens(of text: [UInt8]) -> [(id: Int32, end: Int)]
  /// The token that begins every text, where the tokenizer adds one.
  var leadingToken: Int32? { get }
  /// The token that ends an answer.
  var endToken: Int32? { get }
}

extension Tokenizer: TextEncoder {
  /// The tokens of a text; text that spells a control token stays text.
  public func tokens(of text: [UInt8]) -> [(id: Int32, end: Int)] { encodeWithOffsets(text).map { ($0.id, $0.range.upperBound) } }

  /// The begin token, if it is added to every text.
  public var leadingToken: Int32? { addsBeginToken ? beginToken : nil }
}
