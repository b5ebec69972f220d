import Checkpoints
import Samples
import Tensors

extension TrainingRecipe {
  /// What a count may be: epochs times the steps of an epoch, say, then has room in an Int.
  private static let counts = 1...1_000_000_000

  /// Refuses settings that no run can have, whatever model and data say.
  ///
  /// - Throws: `SettingsError` naming the first of them.
  public func check() throws {
    try checkAdapter()
    try encoding.check()
    for (name, value) in [
      ("epochs", epochs), ("batch", batch), ("accumulate", accumulate), ("save-every", saveEvery), ("keep", keep), ("steps", steps ?? 1),
      ("evaluate-every", evaluateEvery ?? 1),
    ] where !Self.counts.contains(value) {
      throw SettingsError(
        "\(setting: name) is \(value), expected \(value < 1 ? "at least \(Self.counts.lowerBound)" : "at most \(Self.counts.upperBound)").")
    }
    guard alpha > 0, alpha.isFinite else { throw SettingsError("\(setting: "alpha") is \(alpha), expected a number > 0.") }
    if let memory, memory < 1 { throw SettingsError("\(setting: "memory") is \(memory), expected a number of bytes.") }
    guard memory == nil || !recomputes else {
      throw SettingsError("\(setting: "memory") chooses the blocks to recompute, \(setting: "recompute") takes all: one of them.")
    }
    guard batch % accumulate == 0 else {
      throw SettingsError("\(setting: "accumulate") is \(accumulate), expected a divisor of \(setting: "batch"), \(batch).")
    }
    for (name, value) in [
      ("lr", learningRate), ("weight-decay", weightDecay), ("clip", clip), ("router-coefficient", routerCoefficient),
    ] where !(value >= 0 && value.isFinite) { throw SettingsError("\(setting: name) is \(value), expected a number ≥ 0.") }
    guard (0..<1).contains(momentum) else { throw SettingsError("\(setting: "momentum") is \(momentum), expected a number in [0, 1).") }
    guard warmup >= 0, warmup <= 1 else {
      throw SettingsError("\(setting: "warmup") is \(warmup), expected a share between 0 and 1.")
    }
    guard warmup == 0 || schedule != .constant else {
      throw SettingsError(
        "\(setting: "warmup") with \(setting: "schedule") constant: use constant_with_warmup, which has one.")
    }
    guard loraPlus >= 1, loraPlus.isFinite else { throw SettingsError("\(setting: "lora-plus") is \(loraPlus), expected at least 1.") }
    _ = try QuestionTask.list(task)
  }

  /// The part of ``check()`` that is about the size of the adapter.
  ///
  /// - Throws: `SettingsError` as there.
  public func checkAdapter() throws {
    for (name, value) in [("rank", rank), ("experts", experts), ("top-k", topK)] where !(1...1_000_000).contains(value) {
      throw SettingsError("\(setting: name) is \(value), expected 1 to 1000000.")
    }
    guard topK <= experts else {
      throw SettingsError("\(setting: "top-k") is \(topK), expected at most \(setting: "experts"), \(experts).")
    }
    if method == .mixlora, initialization == .pissa || initialization == .olora {
      throw SettingsError(
        "\(setting: "init") is \(initialization.rawValue), which changes the base weights: it goes with \(remedy: "method") lora alone. The programs that read a mixture take the base as it is."
      )
    }
    guard dropout >= 0, dropout < 1 else { throw SettingsError("\(setting: "dropout") is \(dropout), expected a number in [0, 1).") }
  }

  /// Whether one of several adapters may be called so: its files go into a folder of this name, in that of the run and in checkpoints.
  /// Names that differ in case alone are one folder on some systems. Messages, a line each, have it too.
  public static func canBeFolder(_ name: String) -> Bool {
    !name.isEmpty && !name.contains("/") && presentable(name) == name && !name.hasPrefix(".") && !name.hasPrefix(TrainingCheckpoint.prefix)
      && name.lowercased() != TrainingCheckpoint.stateFile && name.utf8.count < 200
  }

  /// Refuses recipes that cannot be one run: of adapters without a name of their own that a folder may have, with the base trained, or
  /// with different ideas of what they share.
  ///
  /// - Throws: `SettingsError` naming the first of them.
  static func requireOneRun(_ recipes: [TrainingRecipe]) throws {
    guard let first = recipes.first else { trap("TrainingRun: no recipe") }
    guard recipes.count > 1 else { return }
    func said(_ number: Int?) -> String { number.map { "\($0)" } ?? "not given" }
    var names: Set<String> = []
    for recipe in recipes {
      guard let name = recipe.name, !name.isEmpty else { throw SettingsError("One of several adapters has no name.") }
      guard canBeFolder(name) else { throw SettingsError("'\(presentable(name))' is no name of an adapter's folder.") }
      guard names.insert(name.lowercased()).inserted else { throw SettingsError("Two adapters are called '\(name)'.") }
      guard recipe.method != .full else { throw SettingsError("\(setting: "method") full trains the base, which several adapters share.") }
      for (setting, own, common) in [
        ("model", recipe.model, first.model), ("evaluation", recipe.evaluation.rawValue, first.evaluation.rawValue),
        ("recompute", "\(recipe.recomputes)", "\(first.recomputes)"),
        ("memory", said(recipe.memory), said(first.memory)),
        ("router-loss", recipe.routerLoss.rawValue, first.routerLoss.rawValue),
        ("threads", said(recipe.threads), said(first.threads)),
        ("keep", "\(recipe.keep)", "\(first.keep)"),
      ] where own != common {
        throw SettingsError("\(setting: setting) is \(own) for '\(name)', but \(common) for '\(first.name ?? "")'; it is one for all.")
      }
    }
  }
}
