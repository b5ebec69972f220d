import Tensors

/// The output projection and the cross-entropy of the next token.
///
/// n labelled rows, V vocabulary, C channels, W (V,C), label y_i of row i:
///
///     z = x Wᵀ                                   (n,V)       dz  = (softmax(z) − onehot(y)) / n      (n,V)
///     loss = −(1/n) Σ_i log softmax(z_i)[y_i]    (1)         dW += dzᵀ x                             (V,C)
///                                                            dx  = dz W                              (n,C)
///
/// Only labelled rows are computed, a chunk of them at a time, and a chunk's logits become their own gradient
/// before the next chunk's are formed: with 49 152 tokens in the vocabulary a batch's logits would be larger than
/// everything else together. That is why forward and backward stand in one function here.
public struct LanguageModelHead<B: Backend> {
  /// W (V,C); the embedding's own weight when the head is tied.
  public let weight: Weight<B>

  /// A head with the given weight.
  public init(weight: Weight<B>) { self.weight = weight }

  /// z = x Wᵀ: (N,C) → (N,V).
  public func logits(_ x: Tensor<B>, _ run: Run<B>) -> Tensor<B> { run.matmul(x, weight.T) }

  /// The cross-entropy over the labelled rows (1), divided by n, and its gradient with respect to x (N,C), zero in other rows.
  ///
  /// n is the number of labelled rows of the optimiser step, of which this batch may be a part.
  public func loss(_ x: Tensor<B>, _ labels: Labels<B>, dividedBy n: Double, _ run: Run<B>) -> (loss: Tensor<B>, dx: Tensor<B>) {
    var loss = run.backend.zeros(Shape(1))
    var dx = run.backend.zeros(x.shape)  // (N,C)
    for chunk in labels.chunks {
      let xs = run.backend.gather(x, rows: chunk.rows)  // (n,C)
      var z = run.matmul(xs, weight.T)  // (n,V)  x Wᵀ
      let losses = run.backend.crossEntropy(&z, labels: chunk.labels, scale: 1 / n)  // (n); z is dz now
      run.backend.add(1 / n, run.backend.sum(losses), into: &loss)
      // forward: z = x Wᵀ
      if let w = weight.parameter { run.addProduct(1, z.T, xs, into: &w.gradient) }  // (V,C)  + dzᵀ x
      let dxs = run.matmul(z, weight)  // (n,C)  dz W
      // forward: xs = x[rows]
      run.backend.addScattered(dxs, rows: chunk.rows, into: &dx)  // (N,C)
    }
    return (loss, dx)
  }

  /// The cross-entropy over the labelled rows (1), divided by their number; no gradient is formed.
  public func lossAlone(_ x: Tensor<B>, _ labels: Labels<B>, _ run: Run<B>) -> Tensor<B> {
    var loss = run.backend.zeros(Shape(1))
    for losses in losses(x, labels, run) { run.backend.add(1 / Double(labels.count), run.backend.sum(losses), into: &loss) }
    return loss
  }

  /// −log softmax(z_i)[y_i] of every labelled row, chunk by chunk, in order.
  public func losses(_ x: Tensor<B>, _ labels: Labels<B>, _ run: Run<B>) -> [Tensor<B>] {
    labels.chunks.map { chunk in
      var z = run.matmul(run.backend.gather(x, rows: chunk.rows), weight.T)  // (n,V)
      return run.backend.crossEntropy(&z, labels: chunk.labels, scale: 0)  // (n)
    }
  }
}

/// Which rows predict a label, in chunks of a size that the head's products like.
public struct Labels<B: Backend> {
  /// A part of the labelled rows.
  public struct Chunk {
    /// The rows of the batch that predict: (n).
    public let rows: Indices<B>
    /// What they should predict: (n).
    public let labels: Indices<B>
  }

  /// All labelled rows, in order.
  public let chunks: [Chunk]
  /// Their number.
  public let count: Int

  /// Rows in one chunk: enough for a product to run at full speed, few enough for 128·V logits to stay small.
  static var chunkSize: Int { 128 }

  /// The row numbers and their labels, uploaded in chunks.
  public init(rows: [Int32], labels: [Int32], on backend: B) {
    guard rows.count == labels.count else { trap("Labels: \(rows.count) rows, \(labels.count) labels") }
    count = rows.count
    chunks = stride(from: 0, to: rows.count, by: Self.chunkSize).map { start in
      let range = start..<min(start + Self.chunkSize, rows.count)
      return Chunk(rows: backend.upload(Array(rows[range])), labels: backend.upload(Array(labels[range])))
    }
  }
}
