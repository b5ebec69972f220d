import Tensors

/// Token embedding: a row of the table for each token, scaled where the family (Gemma: γ = √C) does so.
///
/// N tokens, V vocabulary, C channels:
///
///     y_n = γ W[id_n]     (N,C)          dW[id_n] += γ dy_n     (V,C)   if W is trained
///
/// With a tied head (``LanguageModelHead``) W is the same parameter, and both add to its gradient.
public struct Embedding<B: Backend> {
  /// Module path: `model.embed_tokens`.
  public let path: String
  /// W (V,C).
  public let weight: Weight<B>
  /// γ.
  public let scale: Double

  /// An embedding with the given table.
  public init(path: String, weight: Weight<B>, scale: Double = 1) {
    self.path = path
    self.weight = weight
    self.scale = scale
  }

  /// y_n = γ W[id_n]: (N) → (N,C).
  public func forward(_ ids: Indices<B>, _ run: Run<B>) -> Tensor<B> {
    var y = run.backend.embedding(ids, weight.operand)  // (N,C)
    if scale != 1 { run.backend.scale(scale, &y) }
    run.hook(&y, path, "output", "y = γ W[id]")
    return y
  }

  /// dW[id_n] += γ dy_n; ids have no gradient.
  public func backward(_ dy: Tensor<B>, _ ids: Indices<B>, _ run: Run<B>) {
    var dy = dy
    run.hook(gradient: &dy, path, "output")
    // forward: y_n = γ W[id_n]
    if let w = weight.parameter { run.backend.addEmbeddingGradient(scale, dy, ids, into: &w.gradient) }  // (V,C)
  }
}
