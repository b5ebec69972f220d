/// What a rendering has left of its bounds.
///
/// Whatever a template makes takes its bytes from here and gives them back when nobody holds it any more.
final class Budget {
  private var steps: Int
  private var bytes: Int
  /// Values that may lie inside of each other: as many as JSON may bring, and some more.
  static let depth = 150

  init(steps: Int, bytes: Int) {
    self.steps = steps
    self.bytes = bytes
  }

  /// Allows for values of so many bytes.
  func grant(_ size: Int) {
    steps += 16 * size
    bytes += 16 * size
  }

  /// Counts steps.
  func spend(_ count: Int = 1) throws {
    steps -= count
    if steps < 0 { throw TemplateError("the template takes too many steps") }
  }

  /// Throws if so many bytes are not left; what grows asks before it does.
  func require(_ count: Int) throws {
    guard count <= bytes else { throw TemplateError("the template needs too much memory") }
  }

  func take(_ count: Int) throws {
    try require(count)
    bytes -= count
  }

  func release(_ count: Int) { bytes += count }
}

/// Elements that a template may hold, and for which it pays.
final class Buffer<Element> {
  let elements: [Element]
  private let budget: Budget?

  /// Elements that something else holds anyway: a part of the template, or of what it was given.
  init(freeOfCharge elements: [Element]) {
    self.elements = elements
    budget = nil
  }

  /// Takes the bytes of the elements from `budget`, unless that `isPaid`; without one they are free.
  init(_ elements: [Element], _ budget: Budget?, isPaid: Bool = false) throws {
    self.elements = elements
    self.budget = budget
    if let budget, !isPaid {
      try budget.spend(elements.count / (MemoryLayout<Element>.stride > 4 ? 4 : 32))
      try budget.take(Self.bytes(elements.count))
    }
  }

  deinit { budget?.release(Self.bytes(elements.count)) }

  static func bytes(_ count: Int) -> Int { 48 + count * MemoryLayout<Element>.stride }
}

/// A text that grows.
struct TextBuilder {
  private(set) var scalars: Scalars = []
  private let budget: Budget

  init(_ budget: Budget) { self.budget = budget }

  mutating func append(_ text: Scalars) throws {
    try budget.spend(1 + text.count / 32)
    try budget.take(text.count * MemoryLayout<Unicode.Scalar>.stride)
    scalars += text
  }

  mutating func append(_ text: String) throws { try append(Scalars(text)) }

  /// The text, which goes on to pay for its bytes.
  func value(isMarkup: Bool = false) throws -> Value {
    try budget.take(Buffer<Unicode.Scalar>.bytes(0))
    return .string(Text(try Buffer(scalars, budget, isPaid: true), isMarkup: isMarkup))
  }

  /// Gives the bytes back; the text has been copied elsewhere.
  func discard() { budget.release(scalars.count * MemoryLayout<Unicode.Scalar>.stride) }
}
