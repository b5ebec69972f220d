import Conformance
import Decoders

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
    /// |candidate − reference| ≤ atol + rtol |reference|, element by element, as `torch.allclose`.
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
  /// Which tensors are judged.
  public var isIncluded: @Sendable (String) -> Bool = { _ in true }
  /// Optimizer steps; nil for as many as the candidate's `loss_curve` has.
  public var steps: Int?
  /// Learning rate of the steps; nil for the candidate's metadata, else 1e-3.
  public var learningRate: Double?
  /// Decay of the steps; nil for the candidate's metadata, else 0.01.
  public var weightDecay: Double?

  /// As good as one can without being told more.
  public init() {}
}
