import Checkpoints
import Conformance
import Decoders
import Platform

/// How a candidate is judged.
public struct ComparisonRequest: Sendable {
  /// What a tensor's error is held against.
  public enum Mode: String, Sendable, CaseIterable {
    /// What rounding explains, derived from our own run in the candidate's precision.
    case budget
    /// As many times our own run's error as `ratio` says.
    case referenceRatio = "reference-ratio"
    /// Units in the last place of the candidate's element type.
    case ulp
    /// |candidate − reference| ≤ atol + rtol |reference|, element by element, as `torch.allclose` with `equal_nan`.
    case allclose
    /// The same numbers.
    case exact
  }

  /// The candidate's precision; nil for the lowest that its tensors have.
  public var precision: Precision?
  /// What errors are held against.
  public var mode = Mode.budget
  /// rtol and atol of `allclose`; rtol is also the number of units of `ulp` and the ratio of `reference-ratio` where it is given.
  public var relative: Double?
  /// atol of `allclose`.
  public var absolute: Double?
  /// Whether the candidate's decisions are replayed from the start.
  public var replaysRouting = false
  /// Patterns of the names that are judged; none for all.
  public var only: [String] = []
  /// Patterns of the names that are not.
  public var ignore: [String] = []
  /// Whether only what the evaluation expert by expert forms is judged, in addition.
  var isOnlyPerExpert = false
  /// Optimizer steps; nil for as many as the candidate's `loss_curve` has.
  public var steps: Int?
  /// Learning rate of the steps; nil for the candidate's metadata, else 1e-3.
  public var learningRate: Double?
  /// Decay of the steps; nil for the candidate's metadata, else 0.01.
  public var weightDecay: Double?

  /// As good as one can without being told more.
  public init() {}

  /// Whether a tensor is judged.
  func isIncluded(_ name: String) -> Bool {
    (only.isEmpty || only.contains { POSIX.matches(name, $0) }) && !ignore.contains { POSIX.matches(name, $0) }
      && (!isOnlyPerExpert || Comparison.isOnlyPerExpert(name))
  }

  /// The names that are judged of those that both sides have.
  ///
  /// - Throws: `CheckpointError` if that is none of them, naming the filters and what there is.
  func included(_ names: [String], of path: String) throws -> [String] {
    let included = names.filter(isIncluded)
    guard included.isEmpty else { return included }
    let filters = only.map { "--only '\($0)'" } + ignore.map { "--ignore '\($0)'" }
    throw CheckpointError(
      file: path, found: "none of \(counted(names.count, "tensor")) under \(presentable(filters.joined(separator: " ")))",
      expected:
        "a pattern that matches whole names, such as \(names.prefix(5).map { presentable($0) }.joined(separator: ", "))\(names.count > 5 ? ", …" : "")"
    )
  }
}
