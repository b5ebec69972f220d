import MixLoRA

/// A comparison by settings: with the oracle of a model, or of two files.
struct ComparisonSettings {
  private let candidate: String
  private var name: String?
  private var reference: String?
  private var model: String?
  private var batch: String?
  private let adapters: [String]
  private let rules: [CandidateNames.Rule]
  private var request = ComparisonRequest()
  private var balanceLoss = BalanceLossForm.pooledTopK
  private let threads: Int

  init(_ settings: Settings) throws {
    candidate = try settings.reader.string("candidate")
    try settings.take(&name, "name")
    try settings.take(&reference, "reference")
    try settings.take(&model, "model")
    try settings.take(&batch, "batch")
    adapters = try settings.strings("adapters")
    rules = try settings.strings("map").map { try CandidateNames.Rule($0) }
    (request.only, request.ignore) = (try settings.strings("only"), try settings.strings("ignore"))
    try settings.take(&request.precision, "precision")
    try settings.take(&request.mode, "mode")
    try settings.take(&request.relative, "rtol")
    try settings.take(&request.absolute, "atol")
    try settings.take(&request.steps, "steps", from: 0)
    try settings.take(&request.learningRate, "lr")
    try settings.take(&request.weightDecay, "weight_decay")
    try settings.take(&request.replaysRouting, "replay_routing")
    try settings.take(&balanceLoss, "router_loss")
    threads = try settings.threads()
    try settings.finish()
    guard (reference == nil) == (model != nil), (model == nil) == (batch == nil) else {
      throw InterfaceError(
        "found \(reference == nil ? "no" : "a") reference; expected a model and a batch, or a reference, beside the candidate")
    }
  }

  /// Compares; the answer that `mixlora_compare` has.
  func answer() throws -> String {
    var report = try report()
    report.candidate = name ?? report.candidate
    let answer = JSON.members([
      ("matches", JSON(report.matches)), ("text", JSON(report.text(color: false))), ("html", JSON(report.html)),
    ]).serialized()
    return answer.dropLast() + ",\"lines\":[" + report.jsonLines.joined(separator: ",") + "]}"
  }

  private func report() throws -> ComparisonReport {
    guard let model, let batch else {
      return try Comparison.report(of: candidate, reference: reference ?? "", rules: rules, request: request) { _, _ in }
    }
    var comparison = Comparison(model: model, adapters: adapters, batch: batch)
    (comparison.rules, comparison.request, comparison.balanceLoss) = (rules, request, balanceLoss)
    return try comparison.report(of: candidate, on: CPUDouble(threads: threads))
  }
}
