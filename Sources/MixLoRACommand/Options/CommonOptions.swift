import ArgumentParser
import Platform

/// What every command takes.
struct CommonOptions: ParsableArguments {
  @Option(help: ArgumentHelp("Threads to compute with (default: the cores that this process may use).", valueName: "n"))
  var threads: Int?

  @Flag(help: "No progress on standard error.")
  var quiet = false

  var threadCount: Int { threads ?? POSIX.usableCores }

  func validate() throws {
    if let threads { try requireRange(["--threads": threads], 1...1024) }
  }
}
