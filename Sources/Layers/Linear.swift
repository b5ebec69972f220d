import Tensors

/// A linear layer.
///
/// N rows (tokens), I inputs, O outputs. W (O,I) and b (O) as PyTorch stores them.
///
///     y = x Wᵀ + b     (N,O)          dx += dy W           (N,I)
///                                     dW += dyᵀ x          (O,I)   if W is trained
///                                     db += Σ_n dy_n       (O)     if b is trained
///
/// - Complexity: 2·N·I·O flops forward and backward, 2·N·I·O more if W is trained.
public struct Linear<B: Backend> {
  /// W (O,I).
  public let weight: Weight<B>
  /// b (O), if the layer has one.
  public let bias: Weight<B>?

  /// A layer of the given weights.
  public init(weight: Weight<B>, bias: Weight<B>? = nil) {
    self.weight = weight
    self.bias = bias
  }

  /// y = x Wᵀ + b: (N,I) → (N,O).
  public func forward(_ x: Tensor<B>, _ run: Run<B>) -> Tensor<B> {
    var y = run.backend.matmul(x, weight.T)  // (N,O)  x Wᵀ
    if let bias { run.backend.addBias(run.backend.vector(bias), into: &y) }  // (N,O)  + b
    return y
  }

  /// Adds dy W to dx (nil counts as zero) and forms the gradients of what is trained.
  public func backward(_ dy: Tensor<B>, _ x: Tensor<B>, into dx: inout Tensor<B>?, _ run: Run<B>) {
    // forward: y += b
    if let b = bias?.parameter { run.backend.addColumnSums(dy, weights: nil, into: &b.gradient) }  // (O)  + Σ_n dy_n
    // forward: y = x Wᵀ
    if let w = weight.parameter { run.backend.addProduct(1, dy.T, x, into: &w.gradient) }  // (O,I)  + dyᵀ x
    run.backend.addProduct(1, dy, weight, into: &dx)  // (N,I)  + dy W
  }
}
