/// One element of a tensor of a run, or the whole tensor: `model.norm.output[0,3,7]`, `loss`.
public struct RunElement: Equatable, Sendable, CustomStringConvertible {
  /// The tensor's name.
  public let name: String
  /// A number an axis; empty for the whole tensor.
  public let index: [Int]

  /// An element.
  public init(_ name: String, _ index: [Int]) { (self.name, self.index) = (name, index) }

  /// Reads `NAME[i,j]` or `NAME`; nil for anything else.
  public init?(parsing text: some StringProtocol) {
    guard let open = text.firstIndex(of: "[") else {
      guard !text.isEmpty, !text.contains("]") else { return nil }
      self.init(String(text), [])
      return
    }
    guard text.last == "]", open > text.startIndex else { return nil }
    let parts = text[text.index(after: open)..<text.index(before: text.endIndex)].split(separator: ",", omittingEmptySubsequences: false)
    let numbers = parts.compactMap { part in part.allSatisfy { $0.isASCII && $0.isNumber } ? Int(part) : nil }
    guard numbers.count == parts.count, !numbers.isEmpty else { return nil }
    self.init(String(text[..<open]), numbers)
  }

  /// As it is read.
  public var description: String { index.isEmpty ? name : "\(name)[\(index.map(String.init).joined(separator: ","))]" }
}
