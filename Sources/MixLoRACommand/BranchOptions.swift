import ArgumentParser
import Layers

/// The size of an adapter and how it is computed: what training and its benchmark have in common.
struct BranchOptions: ParsableArguments {
  @Option(help: "Rank of the low-rank branches.")
  var rank = 16
  @Option(help: "Experts.")
  var experts = 8
  @Option(help: "Experts per token.")
  var topK = 2
  @Option(help: "Dropout of what the branches read.")
  var dropout = 0.05
  @Option(help: "How the experts are computed; equal up to rounding.")
  var evaluation = ExpertEvaluation.sharedBase
  @Flag(help: "Form each block's caches again in backward: less memory, more time, the same bits.")
  var recompute = false

  func validate() throws {
    for (name, value) in [("--rank", rank), ("--experts", experts), ("--top-k", topK)] {
      guard (1...1_000_000).contains(value) else { throw ValidationError("\(name) is \(value), expected 1 to 1000000.") }
    }
    guard topK <= experts else { throw ValidationError("--top-k is \(topK), expected at most --experts, \(experts).") }
    guard dropout >= 0, dropout < 1 else { throw ValidationError("--dropout is \(dropout), expected a number in [0, 1).") }
  }
}
