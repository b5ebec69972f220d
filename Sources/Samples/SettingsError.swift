/// A sentence about settings, in which each is named so that a program can call it what its users do: `--batch`.
///
///     "\(setting: "batch") is \(batch), expected at least 1"
///
/// Where several recipes are one run, a setting may be known to be one of them's.
public struct SettingsText: ExpressibleByStringInterpolation, Equatable, Sendable, CustomStringConvertible {
  fileprivate enum Part: Equatable, Sendable {
    case text(String)
    case setting(String, recipe: Int?)
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

  /// The sentence, every setting called as `name` says, who is told the number of its recipe too, where it is known.
  public func text(_ name: (_ setting: String, _ recipe: Int?) -> String) -> String {
    parts.map { part in
      switch part {
      case .text(let text): text
      case .setting(let setting, let recipe): name(setting, recipe)
      }
    }.joined()
  }

  /// The sentence, its settings being those of a recipe.
  public func about(recipe: Int) -> SettingsText {
    var text = self
    text.parts = parts.map { part in
      if case .setting(let setting, recipe: nil) = part { return .setting(setting, recipe: recipe) }
      return part
    }
    return text
  }

  /// The sentence, every setting by its own name.
  public var description: String { text { setting, _ in setting } }

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
    public mutating func appendInterpolation(setting name: String) { parts.append(.setting(name, recipe: nil)) }
  }
}

/// Settings that contradict each other, the files or the place that is written to.
public struct SettingsError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What is wrong.
  public let text: SettingsText

  /// An error of this sentence.
  public init(_ text: SettingsText) { self.text = text }

  /// Runs what concerns one of several recipes: the settings of an error are this one's.
  public static func about<Result>(recipe: Int, _ body: () throws -> Result) throws -> Result {
    do { return try body() } catch let error as SettingsError { throw SettingsError(error.text.about(recipe: recipe)) }
  }

  /// The sentence, every setting by its own name.
  public var description: String { text.description }
}
