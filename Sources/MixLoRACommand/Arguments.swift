/// The command line of this process, with what `--config` stands for.
///
/// A training configuration is nothing but options written in another way: they are put before those that were given, and as the last
/// of several options counts, these win.
enum Arguments {
  /// All arguments after the program's name.
  ///
  /// - Throws: `CheckpointError` for a configuration that is missing, wrong or asks for what is not built yet.
  static func all() throws -> [String] {
    let given = Array(CommandLine.arguments.dropFirst())
    guard given.first == "train", !given.contains("--help"), !given.contains("-h"), let file = value(of: "--config", in: given) else {
      return given
    }
    return ["train"] + (try TrainingConfiguration(contentsOf: file).arguments) + given.dropFirst()
  }

  /// The names of the options that are there, as `--rank`, whatever their values: the parser does not tell a default from a value given.
  static var names: Set<String> {
    Set(((try? all()) ?? []).prefix { $0 != "--" }.filter { $0.hasPrefix("--") }.map { String($0.prefix { $0 != "=" }) })
  }

  /// The value of the last option of this name.
  private static func value(of name: String, in arguments: [String]) -> String? {
    var value: String?
    for (n, argument) in arguments.enumerated() {
      if argument == name, n + 1 < arguments.count { value = arguments[n + 1] }
      if argument.hasPrefix(name + "=") { value = String(argument.dropFirst(name.count + 1)) }
    }
    return value
  }
}
