/// A step that changes a text before it is cut into pieces.
public enum Normalizer: Equatable, Sendable {
  /// A normalization form of Unicode Standard Annex 15: `NFC`.
  case form(NormalizationForm)

  /// A part of a text after this step; nil where the step leaves it as it is.
  func applied(to range: Range<Int>, of text: WorkingText) -> WorkingText? {
    switch self {
    case .form: text.composed(range)
    }
  }
}

/// A normalization form of Unicode.
public enum NormalizationForm: String, Equatable, Sendable {
  /// Canonical composition.
  case c = "NFC"
}

extension [Normalizer] {
  /// A part of a text after all steps; nil where they leave it as it is.
  func applied(to range: Range<Int>, of text: WorkingText) -> WorkingText? {
    var result: WorkingText?
    for step in self {
      if let next = step.applied(to: result.map { 0..<$0.bytes.count } ?? range, of: result ?? text) { result = next }
    }
    return result
  }

  /// A whole text after all steps.
  func applied(to text: [UInt8]) -> [UInt8] { applied(to: 0..<text.count, of: WorkingText(original: text))?.bytes ?? text }
}
