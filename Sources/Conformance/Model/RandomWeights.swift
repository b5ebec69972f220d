import Decoders
import Tensors

/// Random values for every tensor, initial value or not, so that no branch of a model is zero and no bias is missed.
public struct RandomWeights<B: Backend>: WeightSource {
  private let key: RandomKey
  private let backend: B
  private let deviation: Double

  /// Values N(0, deviation²) under `seed`; norms are around 1.
  public init(seed: UInt64, deviation: Double = 0.3, on backend: B) {
    key = RandomKey(seed: seed)
    self.backend = backend
    self.deviation = deviation
  }

  /// A value for the tensor of this name.
  public func tensor(_ name: String, _ shape: Shape, _ initial: InitialValue) -> Tensor<B> {
    var x = backend.random(shape, .normal(deviation: deviation), key.derived(name, "random value"))
    if case .constant(1) = initial {
      backend.add(1, backend.upload([B.Scalar](repeating: 1, count: shape.count), shape), into: &x)
    }
    return x
  }

  /// A value for the tensor of this name, as a weight that never changes.
  public func frozen(_ name: String, _ shape: Shape, _ initial: InitialValue) -> B.FrozenMatrix {
    backend.freeze(tensor(name, shape, initial))
  }
}
