import Samples
import Training

/// What users call the settings of a run: by their options, or by the keys of the configuration that they come from.
struct SettingNames {
  /// The configuration's file.
  let file: String?
  /// What it says of each adapter, and with the options that were given.
  let configured, recipes: [TrainingRecipe]

  /// A sentence in these names; where one is a key, behind the file's name.
  func text(_ text: SettingsText) -> (words: String, namesKeys: Bool) {
    var namesKeys = false
    let words = text.text { setting, recipe in
      guard let key = key(of: setting, recipe) else { return "--" + setting }
      namesKeys = true
      return key
    }
    return (namesKeys ? "\(file ?? ""): \(words)" : words, namesKeys)
  }

  /// Runs what speaks of settings; an error is the user's, in these names.
  func naming<Result>(_ body: () throws -> Result) throws -> Result {
    do { return try body() } catch let error as SettingsError { throw UsageError(text(error.text).words) }
  }

  /// The key that a setting comes from; nil where an option changed it, or it has no key.
  private func key(of setting: String, _ recipe: Int?) -> String? {
    guard file != nil, let key = TrainingConfiguration.keys[setting], let number = recipe ?? (recipes.count == 1 ? 0 : nil),
      configured[number].json[setting] == recipes[number].json[setting]
    else { return nil }
    return TrainingConfiguration.topKeys.contains(key) ? key : "lora[\(number)].\(key)"
  }
}
