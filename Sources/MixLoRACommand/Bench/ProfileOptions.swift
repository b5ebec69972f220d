import ArgumentParser

/// What a benchmark tells of a step beside its time.
struct ProfileOptions: ParsableArguments {
  @Flag(help: "Print seconds of phases and, of as many repetitions again, the time by operation.")
  var phases = false
  @Option(help: profileHelp)
  var profile: String?

  /// The help of `--profile`, also where there are no phases.
  static let profileHelp = ArgumentHelp(
    "Write when each operation ran, in the last of as many repetitions again: a Chrome trace, for chrome://tracing or Perfetto.",
    valueName: "file")

  /// Whether operations are timed at all.
  var isAsked: Bool { phases || profile != nil }
}
