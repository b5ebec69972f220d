import Tensors

/// A linear layer with trainable low-rank branches (Hu et al. 2021, arXiv:2106.09685, equation 3).
///
/// N rows (tokens), I inputs, O outputs, r rank, s scale. Shapes are PEFT's: A (r,I), B (O,r).
/// u is x with some elements dropped while training, else x itself (``LoRAInput``).
///
///     h = u Aᵀ                    (N,r)        dh  = s dy B              (N,r)
///     y = x Wᵀ + b + s h Bᵀ       (N,O)        dB += s dyᵀ h             (O,r)
///                                              dA += dhᵀ u               (r,I)
///                                              du += dh A                (N,I)
///                                              dx += dy W                (N,I)
///
/// Without a branch it is a plain linear layer, and with several the sums run over the branches. (Here there is
/// one at most; several adapters in one batch will each bring a branch with the rows that it serves.)
///
/// - Complexity: 2·N·(I·O + r·I + r·O) flops forward; 2·N·I·O + 4·N·r·(I + O) backward, 2·N·I·O more if W is trained.
public struct LoRALinear<B: Backend> {
  /// Module path, as Hugging Face names it: `model.layers.3.self_attn.q_proj`.
  public let path: String
  /// The layer that the branches are added to.
  public let linear: Linear<B>
  /// The low-rank branches; empty where the adapter does not target this layer.
  public let branches: [LoRABranch<B>]

  /// N·r scalars a branch. x and u are kept once by the layer that owns all readers of x.
  public struct Cache {
    let h: [Tensor<B>]  // (N,r) a branch
  }

  /// A layer with its branches.
  public init(path: String, linear: Linear<B>, branches: [LoRABranch<B>] = []) {
    self.path = path
    self.linear = linear
    self.branches = branches
  }

  /// y = x Wᵀ + b + Σ s h Bᵀ: (N,I) → (N,O).
  public func forward(_ input: LoRAInput<B>, _ run: Run<B>) -> (y: Tensor<B>, cache: Cache) {
    var y = linear.forward(input.x, run)  // (N,O)  x Wᵀ + b
    var cached: [Tensor<B>] = []
    for branch in branches {
      let h = run.matmul(input.u, branch.a.value.T)  // (N,r)  u Aᵀ
      run.addProduct(branch.scale, h, branch.b.value.T, into: &y)  // (N,O)  + s h Bᵀ
      cached.append(h)
    }
    run.hook(&y, path, "output")
    return (y, Cache(h: cached))
  }

  /// Adds to the gradients of the input and of everything trained.
  public func backward(
    _ dy: Tensor<B>, _ input: LoRAInput<B>, _ cache: consuming Cache, into gradient: inout LoRAInput<B>.Gradient, _ run: Run<B>
  ) {
    var dy = dy
    run.hook(&dy, path, "output")
    for (branch, h) in zip(branches, cache.h) {
      // forward: y += s h Bᵀ
      let dh = run.scaledMatmul(branch.scale, dy, branch.b.value)  // (N,r)  s dy B
      run.addProduct(branch.scale, dy.T, h, into: &branch.b.gradient)  // (O,r)  + s dyᵀ h
      // forward: h = u Aᵀ
      run.addProduct(1, dh.T, input.u, into: &branch.a.gradient)  // (r,I)  + dhᵀ u
      run.addProduct(1, dh, branch.a.value, into: &gradient.du)  // (N,I)  + dh A
    }
    // forward: y = x Wᵀ + b
    linear.backward(dy, input.x, into: &gradient.dx, run)  // (N,I)  + dy W
  }
}

/// One low-rank branch: A (r,I), B (O,r) and the scale s.
public struct LoRABranch<B: Backend> {
  /// A (r,I).
  public let a: Parameter<B>
  /// B (O,r).
  public let b: Parameter<B>
  /// s = alpha/r, or alpha/√r with rsLoRA (Kalajdzievski 2023, arXiv:2312.03732).
  public let scale: Double

  /// A branch of the given matrices.
  public init(a: Parameter<B>, b: Parameter<B>, scale: Double) {
    self.a = a
    self.b = b
    self.scale = scale
  }
}
