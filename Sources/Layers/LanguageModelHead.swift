import Tensors

/// The output projection and the cross-entropy of the next token.
///
/// m labeled rows of this batch, n of the whole optimizer step, V vocabulary, C channels, W (V,C), label y_i of row i:
///
///     z = x Wᵀ                                   (m,V)       dz  = (softmax(z) − onehot(y)) / n      (m,V)
///     loss = −(1/n) Σ_i log softmax(z_i)[y_i]    (1)         dW += dzᵀ x                             (V,C)
///                                                            dx += dz W                              (m,C)
///
/// With a soft cap c (Gemma 2) the logits are c · tanh(z / c), and dz gets the factor 1 − tanh²(z / c).
///
/// A loss needs labeled rows only. They are computed a chunk at a time (`Backend.headRows(_:)`; m is then the rows of a chunk), and a
/// chunk's logits become their own gradient before the next chunk's are formed: with 49 152 tokens in the vocabulary a batch's logits
/// would be larger than everything else together. That is why forward and backward stand in one function here. Only for `logits(_:_:)`
/// and where somebody observes `lm_head.output` are the logits of all rows one tensor.
///
/// - Complexity: 2·m·V·C flops forward, as many backward, 2·m·V·C more if W is trained. Memory for a chunk of logits.
public struct LanguageModelHead<B: Backend> {
  /// Module path: `lm_head`.
  public let path: String
  /// W (V,C); the embedding's own weight when the head is tied.
  public let weight: Weight<B>
  /// c.
  public let softcap: Double?

  /// A head with the given weight.
  public init(path: String = "lm_head", weight: Weight<B>, softcap: Double? = nil) {
    self.path = path
    self.weight = weight
    self.softcap = softcap
  }

  /// The logits of every row: (N,C) → (N,V).
  ///
  /// - Complexity: 2·N·V·C flops, and memory for N·V numbers: give it the rows that are asked for.
  public func logits(_ x: Tensor<B>, _ run: Run<B>) -> Tensor<B> {
    var z = run.backend.matmul(x, weight.T)
    run.hook(&z, path, "output", "z = x Wᵀ")
    if let softcap { run.backend.softcap(softcap, &z) }
    return z
  }

  /// −log softmax(z_i)[y_i] of every labeled row, chunk by chunk, in order: m numbers in all.
  public func losses(_ x: Tensor<B>, _ labels: Labels<B>, _ run: Run<B>) -> [Tensor<B>] {
    labels.chunks(of: run.backend.headRows(weight)).map { chunk in
      var z = run.backend.matmul(run.backend.gather(x, rows: chunk.rows), weight.T)  // (m,V)
      return run.backend.crossEntropy(&z, labels: chunk.labels, scale: 0, softcap: softcap)  // (m)
    }
  }

  /// The cross-entropy over the labeled rows (1), divided by their number m; no gradient is formed.
  public func loss(_ x: Tensor<B>, _ labels: Labels<B>, _ run: Run<B>) -> Tensor<B> {
    var loss = run.backend.zeros(Shape(1))
    for losses in losses(x, labels, run) { run.backend.add(1 / Double(labels.count), run.backend.sum(losses), into: &loss) }
    return loss
  }

  /// For each owner of labels, the cross-entropy over its labeled rows (1), divided by n; adds their gradients to dx (N,C) and, where it
  /// is trained, to W's.
  ///
  /// - Parameter owners: labels with n, the number of labeled rows of the optimizer step, of which this batch may be a part.
  public func gradients(_ x: Tensor<B>, _ owners: [(labels: Labels<B>, n: Double)], into dx: inout Tensor<B>, _ run: Run<B>) -> [Tensor<B>]
  {
    if run.observes(["\(path).output"]) { return observedGradients(x, owners, into: &dx, run) }
    return owners.map { labels, n in
      var loss = run.backend.zeros(Shape(1))
      for chunk in labels.chunks(of: run.backend.headRows(weight)) {
        let xs = run.backend.gather(x, rows: chunk.rows)  // (m,C)
        var z = run.backend.matmul(xs, weight.T)  // (m,V)  x Wᵀ
        let dz = logitsGradient(&z, chunk, n, into: &loss, run)  // (m,V)
        backward(dz, xs, chunk, into: &dx, run)
      }
      return loss
    }
  }

  /// loss += the chunk's cross-entropy; z (n,V) becomes its gradient.
  private func logitsGradient(_ z: inout Tensor<B>, _ chunk: Labels<B>, _ n: Double, into loss: inout Tensor<B>, _ run: Run<B>) -> Tensor<B>
  {
    let losses = run.backend.crossEntropy(&z, labels: chunk.labels, scale: 1 / n, softcap: softcap)  // (m)
    run.backend.add(1 / n, run.backend.sum(losses), into: &loss)
    return z
  }

  private func backward(_ dz: Tensor<B>, _ xs: Tensor<B>, _ chunk: Labels<B>, into dx: inout Tensor<B>, _ run: Run<B>) {
    // forward: z = x Wᵀ
    if let w = weight.parameter { run.backend.addProduct(1, dz.T, xs, into: &w.gradient) }  // (V,C)  + dzᵀ x
    let dxs = run.backend.matmul(dz, weight)  // (m,C)  dz W
    // forward: xs = x[rows]
    run.backend.addScattered(dxs, rows: chunk.rows, into: &dx)  // (N,C)
  }

  /// The same, with the logits of all rows as one tensor that hooks see, z before the soft cap; its gradient is zero without a label.
  ///
  /// What nobody replaces is computed as ever, so that a hook which only looks changes no bit.
  private func observedGradients(
    _ x: Tensor<B>, _ owners: [(labels: Labels<B>, n: Double)], into dx: inout Tensor<B>, _ run: Run<B>
  ) -> [Tensor<B>] {
    let backend = run.backend
    let formed = backend.matmul(x, weight.T)  // (N,V)  x Wᵀ
    var all = formed
    run.hook(&all, path, "output", "z = x Wᵀ")
    let isReplaced = all.storage !== formed.storage || all.offset != formed.offset
    var dAll = backend.zeros(all.shape)  // (N,V)
    var parts: [(dz: Tensor<B>, xs: Tensor<B>, chunk: Labels<B>)] = []
    let losses = owners.map { labels, n in
      var loss = backend.zeros(Shape(1))
      for chunk in labels.chunks(of: backend.headRows(weight)) {
        let xs = backend.gather(x, rows: chunk.rows)  // (m,C)
        var z = isReplaced ? backend.gather(all, rows: chunk.rows) : backend.matmul(xs, weight.T)  // (m,V)
        let dz = logitsGradient(&z, chunk, n, into: &loss, run)  // (m,V)
        backend.addScattered(dz, rows: chunk.rows, into: &dAll)
        parts.append((dz, xs, chunk))
      }
      return loss
    }
    let formedGradient = dAll
    run.hook(gradient: &dAll, path, "output")
    if dAll.storage === formedGradient.storage, dAll.offset == formedGradient.offset {
      for (dz, xs, chunk) in parts { backward(dz, xs, chunk, into: &dx, run) }
    } else {
      if let w = weight.parameter { backend.addProduct(1, dAll.T, x, into: &w.gradient) }  // (V,C)
      backend.addProduct(1, dAll, weight, into: &dx)  // (N,C)
    }
    return losses
  }
}
