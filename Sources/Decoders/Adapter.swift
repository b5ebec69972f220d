import Layers
import Tensors

/// An adapter inside a model: its settings and everything that belongs to it alone.
public struct Adapter<B: Backend> {
  /// What its file says.
  public let configuration: AdapterConfiguration
  /// Its tensors, parameters and their arena.
  public let trained: TrainedPart<B>
  /// The balance loss of its routers, with coefficient 0 where the settings switch it off; nil without a router.
  public let balanceLoss: BalanceLoss<B>?
}

/// Tensors that are trained together: an adapter's, or the base's.
public struct TrainedPart<B: Backend> {
  /// Every tensor by the name that files give it, in the order of the model.
  public let tensors: [TrainedTensor<B>]
  /// The parameters that hold them, each once: one may hold the tensors of all experts.
  public let parameters: [Parameter<B>]
  /// Where all of them lie.
  public let arena: ParameterArena<B>

  /// Makes the arena of the tensors' parameters and reads each value into its place.
  init(_ pending: [PendingTensor<B>], on backend: B) throws {
    tensors = pending.map(\.tensor)
    var seen: Set<ObjectIdentifier> = []
    parameters = tensors.map(\.parameter).filter { seen.insert(ObjectIdentifier($0)).inserted }
    arena = ParameterArena(parameters, on: backend)
    for item in pending {
      let shape = item.tensor.view(of: item.tensor.parameter.value).shape
      if item.value == nil, item.initial == .constant(0), item.weights is InitialWeights<B> { continue }  // as the arena is
      item.tensor.set(try item.value ?? item.weights.tensor(item.source, shape, item.initial), on: backend)
    }
  }
}

/// A tensor that has no value yet, and where it comes from. All of a model are asked for before the first is read: sizes may be mere
/// numbers in a configuration, and no buffer is made for what a file does not have.
struct PendingTensor<B: Backend> {
  let tensor: TrainedTensor<B>
  let weights: any WeightSource<B>
  /// What the source calls it.
  let source: String
  let initial: InitialValue
  /// Its value, where it is known without the source.
  let value: Tensor<B>?

  init(
    tensor: TrainedTensor<B>, weights: any WeightSource<B>, source: String? = nil, initial: InitialValue, value: Tensor<B>? = nil
  ) {
    (self.tensor, self.weights, self.source, self.initial) = (tensor, weights, source ?? tensor.name, initial)
    self.value = value
  }
}

/// A trained tensor as files know it: a parameter, or one expert's part of a parameter that holds all experts'.
public struct TrainedTensor<B: Backend> {
  /// Name in the adapter or checkpoint.
  public let name: String
  /// The parameter that holds it.
  public let parameter: Parameter<B>
  /// Which part of the parameter it is; nil for all of it.
  let part: (expert: Int, of: Int, axis: StackAxis)?

  /// This tensor's part of `whole`, which has the parameter's shape: its value, its gradient, a moment.
  public func view(of whole: Tensor<B>) -> Tensor<B> {
    guard let part else { return whole }
    return ExpertStack(whole, experts: part.of, along: part.axis)[part.expert]
  }

  /// Sets this tensor's part of the parameter to `value`.
  ///
  /// - Precondition: `value` has the part's shape.
  public func set(_ value: Tensor<B>, on backend: B) { copy(value, into: &parameter.value, backend) }

  /// Sets this tensor's part of the parameter's gradient to `gradient`.
  ///
  /// - Precondition: `gradient` has the part's shape.
  public func setGradient(_ gradient: Tensor<B>, on backend: B) { copy(gradient, into: &parameter.gradient, backend) }

  private func copy(_ x: Tensor<B>, into whole: inout Tensor<B>, _ backend: B) {
    guard let part else { return backend.copy(x, into: &whole) }
    switch part.axis {
    case .rows: backend.copy(x, into: &whole, rows: part.expert * x.rowCount..<(part.expert + 1) * x.rowCount)
    case .columns: backend.copy(x, into: &whole, rows: nil, columns: part.expert * x.columnCount..<(part.expert + 1) * x.columnCount)
    }
  }
}
