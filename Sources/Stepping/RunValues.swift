import Traces

/// The numbers of a recorded run, and those that formed it.
public protocol RunValues: AnyObject {
  /// The batch.
  var batch: TraceBatch { get }
  /// Where every tensor comes from; nil for a name that the run does not have.
  func provenance(of name: String) -> Provenance?
  /// The sizes of a tensor of the run; nil if there is none.
  func shape(of name: String) -> [Int]?
  /// Some numbers of a tensor of the run, row-major.
  func values(of name: String, in range: Range<Int>) -> [Double]
  /// The sizes of a weight; nil if there is none.
  func weightShape(_ name: String) -> [Int]?
  /// A row of a weight, before any step; of a vector all of it.
  func weightRow(_ name: String, _ row: Int) throws -> [Double]
  /// A column of a weight.
  func weightColumn(_ name: String, _ column: Int) throws -> [Double]
  /// cos and sin of a rotary plane at a position of the batch.
  func turn(plane: Int, position: Int) -> (cos: Double, sin: Double)
  /// The settings of AdamW: learning rate, decay, β₁, β₂, ε.
  var optimizer: OptimizerNumbers { get }
}

extension RunValues {
  /// All numbers of a tensor of the run; empty if there is none.
  public func values(of name: String) -> [Double] { values(of: name, in: 0..<(shape(of: name) ?? [0]).reduce(1, *)) }
}

/// The numbers of AdamW.
public struct OptimizerNumbers: Equatable, Sendable {
  /// lr.
  public var learningRate = 1e-3
  /// λ.
  public var weightDecay = 0.01
  /// β₁.
  public var beta1 = 0.9
  /// β₂.
  public var beta2 = 0.999
  /// ε.
  public var epsilon = 1e-8

  /// Torch's defaults, as `mixlora trace --steps` has them.
  public init() {}
}
