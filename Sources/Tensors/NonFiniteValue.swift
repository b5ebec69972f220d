/// A value that is NaN or infinite where a number was needed: nothing can be learnt, chosen or compared by it.
public struct NonFiniteValue: Error, Equatable, Sendable, CustomStringConvertible {
  /// Where in the work it was met, the wider place before the narrower: "step 7", "run, boolq: question 3".
  public let place: String
  /// What is not finite: a tensor by its path, or a loss, a score, the logits of a token in words.
  public let value: String
  /// The rest of the sentence: that the value is not finite, and what follows from it.
  public let problem: String

  /// A value at a place; `problem` goes on behind both.
  public init(_ value: String, at place: String, _ problem: String = "is not finite") {
    self.value = value
    self.place = place
    self.problem = problem
  }

  /// The same error inside a wider place.
  public func within(_ wider: String) -> NonFiniteValue { NonFiniteValue(value, at: "\(wider): \(place)", problem) }

  /// One sentence: place, value, problem.
  public var description: String { "\(place): \(value) \(problem)" }
}
