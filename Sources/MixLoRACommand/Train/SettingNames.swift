import Samples
import Training

/// What users call the settings of a run: by their options, or by the keys of the configuration that they come from.
struct SettingNames {
  /// The configuration's file, if there is one.
  let file: String?
  /// Each adapter as the file has it.
  let configured: [TrainingConfiguration]
  /// Each adapter with what options changed of it.
  let recipes: [TrainingRecipe]
  /// The options on the command line: `--batch`.
  let given: Set<String>

  /// A sentence in these names. One that speaks of the file alone begins with its name.
  func text(_ text: SettingsText) -> String { sentence(text).words }

  /// Runs what speaks of settings: what is wrong with them is called by these names. It is the file's fault where no option has a part
  /// in it, and else the command line's.
  func naming<Result>(_ body: () throws -> Result) throws -> Result {
    do { return try body() } catch let error as SettingsError {
      let (words, isOfFile) = sentence(error.text)
      throw isOfFile ? InputError(words) : UsageError(words)
    }
  }

  private func sentence(_ text: SettingsText) -> (words: String, isOfFile: Bool) {
    var (namesKey, namesOption) = (false, false)
    let words = text.text({ setting in
      if setting.isRemedy { return "--" + setting.name }
      if isOption(setting) { namesOption = true }
      guard let key = key(of: setting) else { return option(of: setting.name) }
      namesKey = true
      return key
    }) { value, setting in
      key(of: setting) == nil ? value.serialized() : configured[setting.recipe ?? 0].text(value, of: setting.name)
    }
    let isOfFile = namesKey && !namesOption
    return (isOfFile ? "\(file ?? ""): \(words)" : words, isOfFile)
  }

  private func isOption(_ setting: SettingsText.Setting) -> Bool { given.contains("--" + setting.name) }

  /// The key that a setting comes from; nil where it is an option's, or has no key.
  private func key(of setting: SettingsText.Setting) -> String? {
    guard file != nil, let key = configured[setting.recipe ?? 0].keys[setting.name], !isOption(setting) else { return nil }
    if TrainingConfiguration.topSettings.contains(setting.name) { return key }
    return (setting.recipe ?? (recipes.count == 1 ? 0 : nil)).map { "lora[\($0)].\(key)" }
  }

  private func option(of setting: String) -> String {
    if setting == "steps", !given.contains("--steps") { return "the number of steps" }  // it follows from others
    guard TrainingConfiguration.unoptional.contains(setting) else { return "--" + setting }
    return "\(TrainingConfiguration().keys[setting] ?? setting) of --config"
  }
}
