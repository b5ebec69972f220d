import Tensors

/// Dropout on what low-rank branches read (Srivastava et al. 2014).
///
/// The frozen product reads x, the branches read u. There is one mask for each *input*, keyed by the input's name,
/// shared by every LoRA and every expert that reads it; so concatenating their matrices changes nothing.
/// (PEFT draws a mask of its own for every linear layer.)
///
///     u = m ⊙ x,  m = 1/(1−p) with probability 1−p, else 0          dx += m ⊙ du
///
/// The mask is a function of key, step, sample and position: backward forms it again, nothing is stored.
/// Outside training, and with p = 0, u is x.
public struct InputDropout<B: Backend> {
  /// Name of the input: `model.layers.3.mlp.input`.
  public let path: String
  /// p, the probability with which an element is dropped.
  public let probability: Double

  /// Dropout on the input of that name.
  public init(path: String, probability: Double) {
    self.path = path
    self.probability = probability
  }

  /// x with what the branches read: (N,I). Called again in backward, it gives the same.
  public func forward(_ x: Tensor<B>, _ run: Run<B>) -> LoRAInput<B> {
    LoRAInput(x: x, u: masked(x, run))
  }

  /// dx + m ⊙ du; nil counts as zero. Takes both out of `gradient`, so that dx is held once and written in place.
  public func backward(_ gradient: inout LoRAInput<B>.Gradient, _ run: Run<B>) -> Tensor<B> {
    // forward: u = m ⊙ x
    let du = gradient.du.take().map { masked($0, run) }  // (N,I)  m ⊙ du
    guard var dx = gradient.dx.take() else {
      guard let du else { trap("\(path): no gradient arrived") }
      return du
    }
    if let du { run.backend.add(1, du, into: &dx) }  // (N,I)  + m ⊙ du
    return dx
  }

  private func masked(_ x: Tensor<B>, _ run: Run<B>) -> Tensor<B> {
    guard run.isTraining, probability > 0 else { return x }
    guard let rows = run.rows else { trap("\(path): dropout needs to know the rows of the batch") }
    return run.backend.dropout(x, probability, run.key.derived(path, "dropout"), rows)
  }
}

/// The input of layers with low-rank branches.
public struct LoRAInput<B: Backend> {
  /// What frozen products and routers read: (N,I).
  public let x: Tensor<B>
  /// What the branches read: x, or x with some elements dropped, (N,I).
  public let u: Tensor<B>

  /// The gradients that the readers add to; nil counts as zero.
  public struct Gradient {
    /// From the readers of x: (N,I).
    public var dx: Tensor<B>?
    /// From the readers of u: (N,I).
    public var du: Tensor<B>?

    /// Zero.
    public init() {}
  }
}
