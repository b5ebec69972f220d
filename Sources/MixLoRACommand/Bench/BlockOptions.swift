import ArgumentParser

/// The sizes of one block, and how often it is timed: what `bench ffn` and `bench ops` have in common.
struct BlockOptions: ParsableArguments {
  @Option(help: "Channels C of the model.")
  var channels = 2048
  @Option(help: "Hidden width F.")
  var hidden = 5632
  @Option(help: "Tokens N.")
  var tokens = 512
  @Option(help: "Timed runs.")
  var repeats = 5

  func validate() throws {
    try requireRange(["--channels": channels, "--hidden": hidden, "--tokens": tokens, "--repeats": repeats])
    guard channels % 64 == 0 else { throw ValidationError("--channels is \(channels), expected a multiple of 64, the width of a head.") }
  }
}
