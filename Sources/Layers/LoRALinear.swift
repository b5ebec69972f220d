import Tensors

/// A linear layer with trainable low-rank branches (Hu et al. 2021, arXiv:2106.09685, equation 3).
///
/// N rows (tokens), I inputs, O outputs, r rank, s scale. Shapes are PEFT's: A (r,I), B (O,r). Every adapter has its own branch and its
/// own rows of the batch: the sums below run over all rows for W, over the adapter's n rows for A and B.
/// u is the adapter's rows of x, with some elements dropped while training (``LoRAInput``).
///
///     h = u Aᵀ                    (n,r)        dh  = s dy B              (n,r)
///     y = x Wᵀ + b + s h Bᵀ       (N,O)        dB += s dyᵀ h             (O,r)
///                                              dA += dhᵀ u               (r,I)
///                                              du += dh A                (n,I)
///                                              dx += dy W                (N,I)
///
/// and, where they are trained, dW += dyᵀ x and db += Σ_n dy_n as in ``Linear``. Without a branch it is a plain linear layer.
///
/// - Complexity: 2·N·I·O flops, and 2·n·r·(I + O) for each branch, forward; 2·N·I·O + 4·n·r·(I + O) backward, 2·N·I·O more if W is trained.
public struct LoRALinear<B: Backend> {
  /// Module path, as Hugging Face names it: `model.layers.3.self_attn.q_proj`.
  public let path: String
  /// The layer that the branches are added to.
  public let linear: Linear<B>
  /// The low-rank branches, one at most an adapter; none of an adapter that does not target this layer.
  public let branches: [LoRABranch<B>]

  /// n·r scalars a branch. x and u are kept once by the layer that owns all readers of x.
  public struct Cache {
    let h: [Tensor<B>]  // (n,r) a branch
  }

  /// A layer with its branches.
  public init(path: String, linear: Linear<B>, branches: [LoRABranch<B>] = []) {
    self.path = path
    self.linear = linear
    self.branches = branches
  }

  /// y = x Wᵀ + b, + s h Bᵀ on each adapter's rows: (N,I) → (N,O).
  ///
  /// - Parameter kept: what an earlier forward of the same input kept; h is then not formed again, and u not read.
  public func forward(_ input: LoRAInput<B>, _ batch: PackedBatch<B>, _ run: Run<B>, kept: Cache? = nil) -> (y: Tensor<B>, cache: Cache) {
    var y = linear.forward(input.x, run)  // (N,O)  x Wᵀ + b
    let h = kept?.h ?? branches.map { $0.lowRank(input, run) }  // (n,r) each
    guard h.count == branches.count else { trap("\(path): h of \(h.count) branches, expected \(branches.count)") }
    for (branch, h) in zip(branches, h) { branch.addOutput(h, into: &y, rows: batch.rows(of: branch.adapter), run) }  // + s h Bᵀ
    run.hook(&y, path, "output", "y = x Wᵀ + b + s h Bᵀ,  h = u Aᵀ")
    return (y, Cache(h: h))
  }

  /// Adds to the gradients of the input, dx and du, where nil counts as zero, and of everything trained.
  ///
  /// - Precondition: `input` is that of the forward, or formed again by the same ``InputDropout`` in the same run.
  public func backward(
    _ dy: Tensor<B>, _ input: LoRAInput<B>, _ cache: consuming Cache, into gradient: inout LoRAGradient<B>, _ batch: PackedBatch<B>,
    _ run: Run<B>
  ) {
    var dy = dy
    run.hook(gradient: &dy, path, "output")
    for (branch, h) in zip(branches, cache.h) {
      branch.backward(dy.rows(batch.rows(of: branch.adapter)), input, h, into: &gradient.du, run)  // (n,I)  + dh A
    }
    // forward: y = x Wᵀ + b
    linear.backward(dy, input.x, into: &gradient.dx, run)  // (N,I)  + dy W
  }
}

/// One low-rank branch: A (r,I), B (O,r) and the scale s.
public struct LoRABranch<B: Backend> {
  /// The number of the adapter whose rows it serves.
  public let adapter: Int
  /// A (r,I).
  public let a: Parameter<B>
  /// B (O,r).
  public let b: Parameter<B>
  /// s = alpha/r, or alpha/√r with rsLoRA (Kalajdzievski 2023, arXiv:2312.03732).
  public let scale: Double

  /// A branch of the given matrices.
  public init(adapter: Int = 0, a: Parameter<B>, b: Parameter<B>, scale: Double) {
    self.adapter = adapter
    self.a = a
    self.b = b
    self.scale = scale
  }

  /// h of the adapter's rows.
  func lowRank(_ input: LoRAInput<B>, _ run: Run<B>) -> Tensor<B> {
    run.backend.matmul(input.u[adapter], a.value.T)  // (n,r)  h = u Aᵀ
  }

  /// Adds what comes of h to the adapter's rows of y.
  func addOutput(_ h: Tensor<B>, into y: inout Tensor<B>, rows: Range<Int>, _ run: Run<B>) {
    run.backend.addProduct(scale, h, b.value.T, into: &y, rows: rows)  // (n,O)  + s h Bᵀ
  }

  /// Adds to the gradients of A, of B and of the adapter's u, from dy (n,O) in its rows.
  func backward(_ dy: Tensor<B>, _ input: LoRAInput<B>, _ h: Tensor<B>, into du: inout [Tensor<B>?], _ run: Run<B>) {
    // forward: y += s h Bᵀ
    let dh = run.backend.matmul(scale, dy, b.value)  // (n,r)  s dy B
    run.backend.addProduct(scale, dy.T, h, into: &b.gradient)  // (O,r)  + s dyᵀ h
    // forward: h = u Aᵀ
    run.backend.addProduct(1, dh.T, input.u[adapter], into: &a.gradient)  // (r,I)  + dhᵀ u
    run.backend.addProduct(1, dh, a.value, into: &du[adapter])  // (n,I)  + dh A
  }
}
