import Tensors

/// Dropout on what low-rank branches read (Srivastava et al. 2014).
///
/// The frozen product reads x, the branches read u. There is one mask for each *input* and adapter, keyed by the input's name,
/// shared by every LoRA and every expert of the adapter that reads it; so concatenating their matrices changes nothing.
/// (PEFT draws a mask of its own for every linear layer.)
///
///     u = m ⊙ x,  m = 1/(1−p) with probability 1−p, else 0          dx += m ⊙ du
///
/// The mask is a function of key, step, sample and position: backward forms it again, and no mask is stored.
/// Outside training, and with p = 0, u is x.
public struct InputDropout<B: Backend> {
  /// Name of the input: `model.layers.3.mlp.input`.
  public let path: String
  /// p of each adapter, the probability with which an element is dropped.
  public let probabilities: [Double]

  /// Dropout on the input of that name.
  public init(path: String, probabilities: [Double]) {
    self.path = path
    self.probabilities = probabilities
  }

  /// Gradients of an input before anybody added to them.
  var noGradient: LoRAGradient<B> { LoRAGradient(adapters: probabilities.count) }

  /// x (N,I) with what the branches read. Called again in backward, it gives the same.
  public func forward(_ x: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> LoRAInput<B> {
    LoRAInput(x: x, u: probabilities.indices.map { masked(x.rows(batch.rows(of: $0)), $0, batch, run) })
  }

  /// dx + m ⊙ du: (N,I). Takes both out of `gradient`, so that dx is held once and written in place.
  ///
  /// - Precondition: a reader of x has added to dx.
  public func backward(_ gradient: inout LoRAGradient<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    guard var dx = gradient.dx.take() else { trap("\(path): no gradient arrived") }
    // forward: u = m ⊙ x
    for adapter in probabilities.indices {
      guard let du = gradient.du[adapter].take() else { continue }
      run.backend.add(1, masked(du, adapter, batch, run), into: &dx, rows: batch.rows(of: adapter))  // (n,I)  + m ⊙ du
    }
    return dx
  }

  /// m ⊙ x for the rows x (n,I) of an adapter; the same for a gradient, since a mask is its own transpose.
  func masked(_ x: Tensor<B>, _ adapter: Int, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    guard let training = run.training, probabilities[adapter] > 0 else { return x }
    let key = training.key(ofAdapter: adapter).derived(path, "dropout")
    return run.backend.dropout(x, probabilities[adapter], key, batch.identity(of: adapter, step: training.step))
  }
}

/// The input of layers with low-rank branches.
public struct LoRAInput<B: Backend> {
  /// What frozen products and routers read: (N,I).
  public let x: Tensor<B>
  /// What each adapter's branches read: its rows of x, or these with some elements dropped, (n,I). None where all h are kept.
  public let u: [Tensor<B>]
}

/// The gradients that the readers of a ``LoRAInput`` add to; nil counts as zero.
public struct LoRAGradient<B: Backend> {
  /// From the readers of x: (N,I).
  public var dx: Tensor<B>?
  /// From each adapter's branches: (n,I).
  public var du: [Tensor<B>?]

  /// Zero, for so many adapters.
  public init(adapters: Int) { du = Array(repeating: nil, count: adapters) }
}
