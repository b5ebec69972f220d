import ArgumentParser
import Layers
import Training

/// The size of an adapter and how it is computed: what training and its benchmark have in common.
struct BranchOptions: ParsableArguments {
  @Option(help: "Rank of the low-rank branches.")
  var rank = Setting(16)
  @Option(help: "Experts.")
  var experts = Setting(8)
  @Option(help: "Experts per token.")
  var topK = Setting(2)
  @Option(help: "Dropout of what the branches read.")
  var dropout = Setting(0.05)
  @Option(help: "How the experts are computed; equal up to rounding.")
  var evaluation = Setting(ExpertEvaluation.sharedBase)
  @Flag(help: "Form each block's caches again in backward: less memory, more time, the same bits.")
  var recompute = false

  /// Puts what was given into a recipe.
  func override(_ recipe: inout TrainingRecipe) {
    rank.override(&recipe.rank)
    experts.override(&recipe.experts)
    topK.override(&recipe.topK)
    dropout.override(&recipe.dropout)
    evaluation.override(&recipe.evaluation)
    if recompute { recipe.recomputes = true }
  }

  /// The options that say something of experts alone.
  static let ofExperts: Set = ["--experts", "--top-k", "--evaluation"]

  /// The options that were given, by name.
  var given: [String] {
    let options = [
      ("--rank", rank.isGiven), ("--experts", experts.isGiven), ("--top-k", topK.isGiven), ("--dropout", dropout.isGiven),
      ("--evaluation", evaluation.isGiven), ("--recompute", recompute),
    ]
    return options.filter(\.1).map(\.0)
  }

  /// Refuses the first option that was given and does nothing: one of `unused`, or any.
  func refuse(_ unused: Set<String>? = nil, because reason: String) throws {
    if let name = given.first(where: { unused?.contains($0) ?? true }) { throw ValidationError("\(name) does nothing: \(reason).") }
  }
}
