import Tokenization

extension Tokenizer: TextEncoder {
  /// The tokens of a text; text that spells a control token stays text.
  public func tokens(of text: [UInt8]) -> [(id: Int32, end: Int)] { encodeWithOffsets(text).map { ($0.id, $0.range.upperBound) } }

  /// The begin token, if it is added to every text.
  public var leadingToken: Int32? { addsBeginToken ? beginToken : nil }

  /// The control token of this spelling.
  public func controlToken(_ spelling: [UInt8]) -> Int32? { controlToken(String(decoding: spelling, as: UTF8.self)) }
}
