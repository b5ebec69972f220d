import Tensors

/// Something that updates parameters from their gradients.
public protocol Optimizer<B> {
  /// The backend of the parameters.
  associatedtype B: Backend
  /// The learning rate of the next step; a schedule sets it.
  var learningRate: Double { get set }
  /// Makes step `number`, counted from 1: updates every parameter from its gradient times `factor` (1 if nil) and sets the
  /// gradients to zero.
  ///
  /// If the factor is not finite, no value and no moment changes.
  mutating func step(_ number: Int, factor: Tensor<B>?)
  /// What it keeps of each parameter, by name: all that a resumed run needs.
  var moments: [(name: String, value: Tensor<B>)] { get }
  /// Takes up where another run stopped, from the value of every moment by name.
  mutating func restore(_ moment: (_ name: String, _ shape: Shape) throws -> Tensor<B>) throws
}

/// LoRA+ (Hayou et al. 2024, arXiv:2402.12354): every B learns `ratio` times as fast as everything else.
///
/// - Returns: what the learning rate of `parameter` is multiplied with.
func loraPlusFactor<B: Backend>(_ parameter: Parameter<B>, ratio: Double) -> Double {
  parameter.name.contains("lora_B") ? ratio : 1
}
