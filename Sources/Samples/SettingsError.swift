/// A sentence about settings, in which each is named so that a program can call it what its users do: `--batch`.
///
///     "\(setting: "batch") is \(batch), expected at least 1"
public struct SettingsText: ExpressibleByStringInterpolation, Equatable, Sendable, CustomStringConvertible {
  fileprivate enum Part: Equatable, Sendable {
    case text(String)
    case setting(String)
  }

  private var parts: [Part]

  /// A sentence without a setting.
  public init(stringLiteral value: String) { parts = [.text(value)] }

  /// An interpolated sentence.
  public init(stringInterpolation: StringInterpolation) { parts = stringInterpolation.parts }

  /// Several sentences, one after the other.
  public init(_ sentences: [SettingsText], separator: String) {
    parts = Array(sentences.map(\.parts).joined(separator: [.text(separator)]))
  }

  /// The sentence, every setting called as `name` says.
  public func text(_ name: (String) -> String) -> String {
    parts.map { part in
      switch part {
      case .text(let text): text
      case .setting(let setting): name(setting)
      }
    }.joined()
  }

  /// The sentence, every setting by its own name.
  public var description: String { text { $0 } }

  /// Collects text and settings.
  public struct StringInterpolation: StringInterpolationProtocol {
    fileprivate var parts: [Part] = []

    /// Nothing yet.
    public init(literalCapacity: Int, interpolationCount: Int) {}

    /// Adds text as it stands.
    public mutating func appendLiteral(_ literal: String) { parts.append(.text(literal)) }

    /// Adds a value as text.
    public mutating func appendInterpolation(_ value: some CustomStringConvertible) { parts.append(.text("\(value)")) }

    /// Adds the name of a setting.
    public mutating func appendInterpolation(setting name: String) { parts.append(.setting(name)) }
  }
}

/// Settings that contradict each other, the files or the place that is written to.
public struct SettingsError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What is wrong.
  public let text: SettingsText

  /// An error of this sentence.
  public init(_ text: SettingsText) { self.text = text }

  /// The sentence, every setting by its own name.
  public var description: String { text.description }
}
