import Checkpoints
import Conformance
import Decoders
import Layers
import Platform
import Tensors
import Traces

/// Compares a candidate with the float64 oracle of a model, or with another file.
public struct Comparison {
  /// A Hugging Face folder or GGUF file.
  public var model: String
  /// Adapter folders.
  public var adapters: [String]
  /// The batch file.
  public var batch: String
  /// What the candidate's names mean beside the usual spellings.
  public var rules: [CandidateNames.Rule] = []
  /// How it is judged.
  public var request = ComparisonRequest()
  /// The form of the balance loss.
  public var balanceLoss = BalanceLossForm.pooledTopK

  /// A comparison with the oracle of a model with adapters, over a batch.
  public init(model: String, adapters: [String] = [], batch: String) {
    (self.model, self.adapters, self.batch) = (model, adapters, batch)
  }

  /// Judges a candidate.
  ///
  /// - Parameters:
  ///   - path: a safetensors or PyTorch file, `.npz`, `.npy`, or a folder.
  ///   - exact: computes in float64.
  ///   - progress: hears what is going on.
  ///   - failing: gets the first wrong operation with the numbers of its call.
  /// - Throws: `CheckpointError` for what is missing or of a wrong shape, where candidate and oracle have nothing in common, and
  ///   `NonFiniteValue` where the oracle itself leaves the finite numbers.
  public func report<Exact: Backend & MatrixFactorizing>(
    of path: String, on exact: Exact, progress: (String) -> Void = { _ in }, failing: (FailingOperation) throws -> Void = { _ in }
  ) throws -> ComparisonReport where Exact.Scalar == Double {
    let files = try ModelFolder(model)
    let input = try TraceBatch(contentsOf: batch, vocabulary: files.configuration.vocabulary, adapters: adapters.count)
    let (order, lists) = try traceTensors(files, input)
    let names = order.names
    // What is left out of the report still is what the rest was computed from.
    let candidate = try Candidate(path, names: CandidateNames(names, rules: rules))
    guard !candidate.tensors.isEmpty else {
      throw candidate.nothingInCommon(with: "a trace of \(model)", expected: "names as `mixlora trace --list` prints them")
    }
    _ = try request.included(names.filter { candidate.tensors[$0] != nil }, of: path)
    let precision = request.precision ?? candidate.precision
    let steps = try stepsOf(candidate)
    var comparisons: [OracleComparison<Exact>] = []
    var report = ComparisonReport(
      tensors: [], reference: "the float64 oracle of \(model)", candidate: path, precision: precision)
    for evaluation in Self.evaluations(candidate) {
      let backend = RoundingBackend(exact)
      let hasGradients = steps.count > 0 || candidate.tensors.keys.contains { $0.contains("grad.") }
      let decoder = try files.decoder(
        adapters: adapters.map { .folder($0) }, trainsBase: hasGradients && adapters.isEmpty, evaluation: evaluation,
        balanceLoss: balanceLoss, on: backend)
      var request = request
      request.isOnlyPerExpert = !comparisons.isEmpty
      let comparison = try OracleComparison(
        OracleModel(decoder, input, on: backend), candidate, request, precision, order.reading(lists[evaluation] ?? []),
        OracleModel<Exact>.Steps(count: steps.count, learningRate: steps.learningRate, weightDecay: steps.weightDecay))
      try comparison.run(progress: progress)
      let found = comparison.report(reference: report.reference)
      report.tensors += found.tensors
      report.notes += found.notes.filter { !report.notes.contains($0) }
      report.routing = report.routing ?? found.routing
      comparisons.append(comparison)
    }
    report.tensors.sort { order.position($0.name) < order.position($1.name) }
    if let first = report.first, let comparison = comparisons.first(where: { $0.hasJudged(first.name) }) {
      progress("what may be the cause")
      if let finder = try CauseFinder(comparison, first, in: report) {
        report.causes = try finder.search()
        if finder.isCut { report.notes.append("the search for causes ended after 20 s; not everything was tried") }
      }
      if let operation = try comparison.failingOperation(first) { try failing(operation) }
    }
    report.missing = Self.missing(names, candidate).filter(request.isIncluded)
    // Nothing of the candidate is passed over in silence: what no run formed is told.
    let judged = Set(report.tensors.map(\.name))
    report.unknown = candidate.unknown + candidate.tensors.keys.filter { !judged.contains($0) && request.isIncluded($0) }.sorted()
    report.notes += notes(candidate, precision) + absentGradients(report.missing, candidate)
    return report
  }

  // MARK: Names

  /// Every tensor of a trace of the model, whatever the evaluation, in the order of the run.
  func traceTensors(_ files: ModelFolder, _ batch: TraceBatch) throws -> (order: RunOrder, lists: [ExpertEvaluation: [Provenance]]) {
    let shape = ShapeBackend()
    let lists = try [ExpertEvaluation.sharedBase, .perExpert].map { evaluation in
      let decoder = try files.decoder(
        adapters: adapters.map { .folder($0) }, trainsBase: adapters.isEmpty, evaluation: evaluation, balanceLoss: balanceLoss, on: shape)
      return try Provenances(decoder, hasBaseRows: batch.adapters.contains(nil)).all.filter {
        batch.hasLabels || $0.phase == .forward && $0.operation != .loss && $0.operation != .balance
      }
    }
    return (RunOrder(lists[0], with: lists[1]), [.sharedBase: lists[0], .perExpert: lists[1]])
  }

  static func isOnlyPerExpert(_ name: String) -> Bool { name.contains(".experts.") && name.hasSuffix(".down_proj.output") }

  /// The evaluations that form what the candidate has.
  private static func evaluations(_ candidate: Candidate) -> [ExpertEvaluation] {
    let names = candidate.tensors.keys
    let needsPerExpert = names.contains { isOnlyPerExpert($0) }
    let needsShared = names.contains { $0.hasSuffix("_proj.base.output") || ($0.contains(".mlp.") && $0.hasSuffix("down_proj.input")) }
    return needsPerExpert ? needsShared ? [.sharedBase, .perExpert] : [.perExpert] : [.sharedBase]
  }

  /// What the candidate lacks of the kinds that it has.
  private static func missing(_ names: [String], _ candidate: Candidate) -> [String] {
    func kind(_ name: String) -> String {
      let isModule = [".output", ".hidden", ".input", ".tokens", ".choice"].contains { name.hasSuffix($0) }
      let phase = ["grad.", "after.", "exp_avg"].first { name.contains($0) } ?? "forward"
      return "\(phase) \(isModule) \(name.contains(".experts."))"
    }
    let kinds = Set(candidate.tensors.keys.map(kind))
    return names.filter { candidate.tensors[$0] == nil && kinds.contains(kind($0)) }
  }

  // MARK: Steps and notes

  private func stepsOf(_ candidate: Candidate) throws -> (count: Int, learningRate: Double, weightDecay: Double) {
    func number(_ key: String) throws -> Double? {
      guard let text = candidate.metadata[key] else { return nil }
      guard let value = Double(text), value.isFinite, value >= 0 else {
        throw CheckpointError(file: candidate.path, place: .key(key), found: "'\(text)'", expected: "a number ≥ 0")
      }
      return value
    }
    let hasValues = candidate.tensors.keys.contains { $0.contains("after.") || $0.contains("exp_avg") }
    if request.steps == nil, let length = candidate.tensors["loss_curve"]?.entry.shape.last, length > 10_000 {
      throw CheckpointError(
        file: candidate.path, place: .tensor("loss_curve"), found: "\(length) steps", expected: "at most 10000, or --steps N for fewer")
    }
    let count = request.steps ?? candidate.tensors["loss_curve"]?.entry.shape.last ?? (hasValues ? 1 : 0)
    return (count, try request.learningRate ?? number("lr") ?? 1e-3, try request.weightDecay ?? number("weight_decay") ?? 0.01)
  }

  private func notes(_ candidate: Candidate, _ precision: Precision) -> [String] {
    var notes: [String] = []
    let low = candidate.tensors.filter { $0.value.precision == precision }.keys.sorted()
    let numbers = candidate.tensors.values.count { $0.precision != nil }
    if request.precision == nil, low.count * 10 < numbers {
      notes.append(
        "everything is judged in \(precision.rawValue), which only \(low.count) of \(counted(numbers, "tensor")) \(low.count == 1 ? "is" : "are") stored in (\(low.prefix(2).joined(separator: ", "))\(low.count > 2 ? ", …" : "")); --precision says otherwise"
      )
    }
    if request.precision == nil, precision == .float64 || precision == .float32 {
      let narrower: [Precision] = precision == .float64 ? [.float32] : [.bfloat16, .float16]
      for other in narrower where (try? Self.allFit(candidate, other)) == true {
        notes.append(
          "every number of \(candidate.path) fits \(other.rawValue); if it was computed in that, say --precision \(other.rawValue)")
        break
      }
    }
    return notes
  }

  /// Parameters without a gradient beside others that have one: perhaps none arrives.
  private func absentGradients(_ missing: [String], _ candidate: Candidate) -> [String] {
    func isParameter(_ name: String) -> Bool { name.contains("grad.") && (name.hasSuffix(".weight") || name.hasSuffix(".bias")) }
    let absent = missing.filter(isParameter)
    let present = candidate.tensors.keys.count(where: isParameter)
    guard !absent.isEmpty, present > 0 else { return [] }
    let names = absent.prefix(3).joined(separator: ", ")
    return [
      "no gradient of \(counted(absent.count, "parameter")) beside \(present) that have one: \(names)\(absent.count > 3 ? ", …" : ""); if they are trained, none arrives there"
    ]
  }

  private static func allFit(_ candidate: Candidate, _ precision: Precision) throws -> Bool {
    for tensor in candidate.tensors.values where tensor.precision != nil {
      var values = try tensor.values()
      let before = values
      precision.round(&values)
      if zip(values, before).contains(where: { $0 != $1 && !$1.isNaN }) { return false }
    }
    return true
  }
}
