import Checkpoints

/// A sentence about settings, in which each is named so that a program can call it what its users do: `--batch`.
///
///     "\(setting: "batch") is \(batch), expected at least 1"
///
/// Where several recipes are one run, a setting may be known to be one of them's.
public struct SettingsText: ExpressibleByStringInterpolation, Equatable, Sendable, CustomStringConvertible {
  /// A setting that a sentence names.
  public struct Setting: Equatable, Sendable {
    /// Its own name: `batch`.
    public let name: String
    /// The number of the recipe that has it, where that is known.
    public fileprivate(set) var recipe: Int?
    /// Whether it is what would help, and not what the sentence is about.
    public let isRemedy: Bool
  }

  fileprivate enum Part: Equatable, Sendable {
    case text(String)
    case setting(Setting)
    case value(JSON, of: Setting)
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

  /// The sentence, every setting called as `name` says, and values as `value` writes them.
  public func text(
    _ name: (Setting) -> String, value: (_ value: JSON, _ setting: Setting) -> String = { value, _ in value.serialized() }
  ) -> String {
    parts.map { part in
      switch part {
      case .text(let text): text
      case .setting(let setting): name(setting)
      case .value(let found, let setting): value(found, setting)
      }
    }.joined()
  }

  /// The sentence, its settings being those of a recipe.
  public func about(recipe: Int) -> SettingsText {
    var text = self
    func about(_ setting: Setting) -> Setting {
      var setting = setting
      setting.recipe = setting.recipe ?? recipe
      return setting
    }
    text.parts = parts.map { part in
      switch part {
      case .text: part
      case .setting(let setting): .setting(about(setting))
      case .value(let value, let setting): .value(value, of: about(setting))
      }
    }
    return text
  }

  /// The sentence, every setting by its own name.
  public var description: String { text { $0.name } }

  /// Collects text and settings.
  public struct StringInterpolation: StringInterpolationProtocol {
    fileprivate var parts: [Part] = []

    /// Nothing yet.
    public init(literalCapacity: Int, interpolationCount: Int) {}

    /// Adds text as it stands.
    public mutating func appendLiteral(_ literal: String) { parts.append(.text(literal)) }

    /// Adds a value as text.
    public mutating func appendInterpolation(_ value: some CustomStringConvertible) { parts.append(.text("\(value)")) }

    /// Adds another sentence.
    public mutating func appendInterpolation(_ text: SettingsText) { parts += text.parts }

    /// Adds the name of a setting that the sentence is about.
    public mutating func appendInterpolation(setting name: String) {
      parts.append(.setting(Setting(name: name, recipe: nil, isRemedy: false)))
    }

    /// Adds the name of a setting that would help.
    public mutating func appendInterpolation(remedy name: String) {
      parts.append(.setting(Setting(name: name, recipe: nil, isRemedy: true)))
    }

    /// Adds a value that a setting has here or elsewhere: a program may write it as its users do.
    public mutating func appendInterpolation(value: JSON, of setting: String) {
      parts.append(.value(value, of: Setting(name: setting, recipe: nil, isRemedy: false)))
    }
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
