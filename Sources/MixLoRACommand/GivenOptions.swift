/// Which options stand on the command line, whatever their values: the parser does not tell a default from a value that was given.
enum GivenOptions {
  /// The names, as `--rank`.
  static let names = Set(
    CommandLine.arguments.prefix { $0 != "--" }.filter { $0.hasPrefix("--") }.map { String($0.prefix { $0 != "=" }) })
}
