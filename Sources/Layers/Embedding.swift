import Tensors

/// Token embedding: a row of the table for each token.
///
/// N tokens, V vocabulary, C channels:
///
///     y_n = W[id_n]     (N,C)          dW[id_n] += dy_n     (V,C)   if W is trained
///
/// With a tied head (``LanguageModelHead``) W is the same parameter, and both add to its gradient.
public struct Embedding<B: Backend> {
  /// Module path: `model.embed_tokens`.
  public let path: String
  /// W (V,C).
  public let weight: Weight<B>

  /// An embedding with the given table.
  public init(path: String, weight: Weight<B>) {
    self.path = path
    self.weight = weight
  }

  /// y_n = W[id_n]: (N) → (N,C).
  public func forward(_ ids: Indices<B>, _ run: Run<B>) -> Tensor<B> {
    var y = run.backend.embedding(ids, weight.operand)  // (N,C)
    run.hook(&y, path, "output")
    return y
  }

  /// dW[id_n] += dy_n.
  public func backward(_ dy: Tensor<B>, _ ids: Indices<B>, _ run: Run<B>) {
    var dy = dy
    run.hook(&dy, path, "output")
    // forward: y_n = W[id_n]
    if let w = weight.parameter { run.backend.addEmbeddingGradient(dy, ids, into: &w.gradient) }  // (V,C)
  }
}
