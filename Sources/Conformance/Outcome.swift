/// What became of one case.
public enum Outcome: Equatable, Sendable {
  /// Every element was within its bound. The error and bound are those of the element that came closest to failing.
  case passed(error: Double, bound: Double)
  /// Something differed; the message names the first element, both values and the bound.
  case failed(String)
  /// The case could not be run, and why. Never a pass.
  case notRun(reason: String)

  /// True only for `passed`.
  public var isPassed: Bool {
    if case .passed = self { true } else { false }
  }

  /// True only for `failed`.
  public var isFailed: Bool {
    if case .failed = self { true } else { false }
  }
}
