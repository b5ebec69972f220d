/// What a device offers: buffers and the operations that a decoder with MixLoRA is made of.
///
/// A backend is an instance. Its pool, threads and counters belong to it, and one caller uses it at a time.
/// An operation works on whole tensors that stay on the device; it enqueues and does not throw. A wrong shape is
/// the caller's bug and traps at once with names and shapes. Only `download` and `synchronize` wait.
///
/// Letters as everywhere: N rows (tokens), C channels, F hidden width, H heads, D head width, V vocabulary,
/// E experts, K experts per token, M = N·K rows ordered by expert, r rank.
/// An operation that returns a tensor gives a fresh one; `into:` names what is written or added to.
/// ``Conformance`` holds the naive definition of each operation, which every backend is tested against.
public protocol Backend: AnyObject {
  /// Element type of tensors: `Float`, or `Double` for the oracle.
  associatedtype Scalar: BinaryFloatingPoint & SIMDScalar & Codable & Sendable
  /// A device buffer of scalars.
  associatedtype Storage: AnyObject
  /// A device buffer of 32-bit integers.
  associatedtype IndexStorage: AnyObject
  /// A weight that never changes, in an encoding of the backend's choice.
  associatedtype FrozenMatrix: FrozenMatrixShape

  /// What was counted since the backend was made.
  var counters: Counters { get }

  // MARK: Memory

  /// A tensor whose contents are undefined until an operation writes them.
  func empty(_ shape: Shape) -> Tensor<Self>
  /// A tensor of zeros.
  func zeros(_ shape: Shape) -> Tensor<Self>
  /// A contiguous copy of `x` with storage of its own.
  func copy(_ x: Tensor<Self>) -> Tensor<Self>
  /// y[rows, columns] ← x; without a range, all of them.
  func copy(_ x: Tensor<Self>, into y: inout Tensor<Self>, rows: Range<Int>?, columns: Range<Int>?)
  /// Moves row-major values to the device. `values.count` is `shape.count`.
  func upload(_ values: [Scalar], _ shape: Shape) -> Tensor<Self>
  /// Moves row-major little-endian bytes of a file, aligned or not, to the device and decodes them.
  func upload(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> Tensor<Self>
  /// Moves whole numbers to the device.
  func upload(_ values: [Int32]) -> Indices<Self>
  /// The row-major values of `x`, once everything that it depends on is done.
  func download(_ x: Tensor<Self>) throws -> [Scalar]
  /// The integers, once everything that they depend on is done.
  func download(_ indices: Indices<Self>) throws -> [Int32]
  /// Keeps a weight that never changes, from the bytes of a file.
  func freeze(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> FrozenMatrix
  /// Keeps a tensor as a weight that never changes.
  func freeze(_ tensor: Tensor<Self>) -> FrozenMatrix
  /// A frozen vector (a norm's weight, a bias) as a tensor; vectors are not kept encoded.
  func vector(_ frozen: FrozenMatrix) -> Tensor<Self>
  /// Says that the longest batch of the run has been seen: from here on, shorter ones live from its buffers.
  func settle()
  /// Waits for everything enqueued and reports what went wrong on the device.
  func synchronize() throws
  /// Random numbers: element i of the row-major result comes from number i % 4 of Philox block i / 4 under `key`.
  ///
  /// Uniform: the number's upper 24 bits, so that both precisions draw the same. Normal: Box–Muller on the numbers of a
  /// block in pairs, in float64: √(−2 ln u) cos 2πu′ and √(−2 ln u) sin 2πu′.
  func random(_ shape: Shape, _ distribution: Distribution, _ key: RandomKey) -> Tensor<Self>

  // MARK: Elementwise and sums

  /// y += α x, for equal shapes.
  func add(_ alpha: Double, _ x: Tensor<Self>, into y: inout Tensor<Self>)
  /// x ← α x; α = 0 writes zeros whatever x held, as β = 0 does in a product.
  func scale(_ alpha: Double, _ x: inout Tensor<Self>)
  /// y += bias in every row: y (N,C), bias (C).
  func addBias(_ bias: Tensor<Self>, into y: inout Tensor<Self>)
  /// sums += Σ_n w_n x_n, over the rows of x (N,C), sums (C). Without weights (N), w = 1.
  func addColumnSums(_ x: Tensor<Self>, weights: Tensor<Self>?, into sums: inout Tensor<Self>)
  /// Σ x, as a vector of one element.
  func sum(_ x: Tensor<Self>) -> Tensor<Self>
  /// Σ x y over all elements, as a vector of one element.
  func dot(_ x: Tensor<Self>, _ y: Tensor<Self>) -> Tensor<Self>
  /// w_n = ⟨x_n, y_n⟩, a row at a time: x, y (N,C) → (N).
  func rowDots(_ x: Tensor<Self>, _ y: Tensor<Self>) -> Tensor<Self>
  /// x_n ← w_n x_n: x (N,C), weights (N).
  func scaleRows(_ weights: Tensor<Self>, _ x: inout Tensor<Self>)

  // MARK: Products

  /// c ← α a b + β c: a (m,k), b (k,n), c (m,n). With β = 0, c is not read.
  ///
  /// `rows` chooses a range of c's rows as the destination, so that chunks need no copies.
  func gemm(
    _ alpha: Double, _ a: Operand<Self>, _ b: Operand<Self>, _ beta: Double, into c: inout Tensor<Self>, rows: Range<Int>?)

  // MARK: Layers

  /// y = x / √(mean x² + ε) ⊙ weight, per row: x (N,C), weight (C) → y (N,C), 1/√(…) (N).
  func rmsNorm(_ x: Tensor<Self>, _ weight: Tensor<Self>, epsilon: Double) -> (y: Tensor<Self>, inverseRMS: Tensor<Self>)
  /// dx += s (dy ⊙ w) − x s³ ⟨dy ⊙ w, x⟩ / C, per row, with s = inverseRMS.
  func rmsNormBackward(
    _ dy: Tensor<Self>, _ x: Tensor<Self>, _ weight: Tensor<Self>, _ inverseRMS: Tensor<Self>, into dx: inout Tensor<Self>)
  /// dweight += Σ_n s_n dy_n ⊙ x_n: (C).
  func rmsNormWeightGradient(_ dy: Tensor<Self>, _ x: Tensor<Self>, _ inverseRMS: Tensor<Self>, into dweight: inout Tensor<Self>)
  /// Rotates pairs (j, j + D/2) of every head of x (N,H·D) by the angle of the row's position; `inverse` turns back.
  ///
  /// The table (P,D) holds cos in its first D/2 columns and sin in the others; positions (N) choose its rows.
  func rope(_ x: inout Tensor<Self>, positions: Indices<Self>, table: Tensor<Self>, inverse: Bool)
  /// Causal attention within each sequence, and within its window where the form has one: q (N,H·D), k and v (N,G·D) → output (N,H·D), log Σ exp of the scores (N,H).
  ///
  /// With ``AttentionForm/keyRows`` k and v (P,G·D) also hold the rows that came before those of q.
  /// A value that is not finite may spread to every row of its own sequence (0 · NaN is NaN), never to another's.
  func attention(_ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, _ form: AttentionForm)
    -> (output: Tensor<Self>, logSumExp: Tensor<Self>)
  /// The gradients of `attention` for dy (N,H·D); the probabilities are formed again from `logSumExp`. The form has no `keyRows`.
  func attentionBackward(
    _ dy: Tensor<Self>, _ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, logSumExp: Tensor<Self>, _ form: AttentionForm
  ) -> (dq: Tensor<Self>, dk: Tensor<Self>, dv: Tensor<Self>)
  /// h = silu(a) ⊙ c, with silu(a) = a / (1 + e⁻ᵃ): a, c (M,F) → (M,F).
  func swiGLU(_ a: Tensor<Self>, _ c: Tensor<Self>) -> Tensor<Self>
  /// da = dh ⊙ c ⊙ silu′(a) and dc = dh ⊙ silu(a), for h = silu(a) ⊙ c.
  func swiGLUBackward(_ dh: Tensor<Self>, _ a: Tensor<Self>, _ c: Tensor<Self>) -> (da: Tensor<Self>, dc: Tensor<Self>)
  /// Rows of the table: ids (N), table (V,C) → (N,C).
  func embedding(_ ids: Indices<Self>, _ table: Operand<Self>) -> Tensor<Self>
  /// dtable[ids[n]] += dy_n, in the order of n: dy (N,C), dtable (V,C).
  func addEmbeddingGradient(_ dy: Tensor<Self>, _ ids: Indices<Self>, into dtable: inout Tensor<Self>)
  /// loss_n = −log softmax(logits_n)[label_n]; logits (N,V) become their gradient, scale · (softmax − onehot).
  func crossEntropy(_ logits: inout Tensor<Self>, labels: Indices<Self>, scale: Double) -> Tensor<Self>
  /// The rows of x that `rows` names: x (N,C) → (count,C).
  func gather(_ x: Tensor<Self>, rows: Indices<Self>) -> Tensor<Self>
  /// y[rows[i]] += x_i; no row is named twice: x (count,C), y (N,C).
  func addScattered(_ x: Tensor<Self>, rows: Indices<Self>, into y: inout Tensor<Self>)
  /// m ⊙ x with the mask m of `key`: 1/(1−p) with probability 1−p, else 0. Forward and backward alike.
  ///
  /// With p = 0 it is x itself; what is dropped becomes 0 whatever it was.
  /// Element j of row n is kept when number j % 4 of Philox block (step, sample_n, position_n, j / 4) is ≥ p·2³².
  func dropout(_ x: Tensor<Self>, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<Self>) -> Tensor<Self>

  // MARK: Routing

  /// softmax of each row: (N,E) → (N,E).
  func softmax(_ logits: Tensor<Self>) -> Tensor<Self>
  /// The K largest of each row, largest first, ties to the lower index: p (N,E) → choice (N·K).
  func topK(_ p: Tensor<Self>, _ k: Int) -> Indices<Self>
  /// Orders the N·K choices by expert, then token, with weight p_j / Σ_chosen p. A choice names an expert at most once per token.
  func route(_ p: Tensor<Self>, choice: Indices<Self>, _ k: Int) -> Routing<Self>
  /// dlogits = w_j (dw_j − Σ_i w_i dw_i) on the chosen, plus p ⊙ (balance − ⟨balance, p⟩) on all.
  ///
  /// dw (M) in expert order, p (N,E), balance (E): the gradient of the balance loss with respect to each row of p.
  func routerBackward(_ dw: Tensor<Self>, _ p: Tensor<Self>, _ routing: Routing<Self>, balance: Tensor<Self>) -> Tensor<Self>
  /// The row of each token once for every expert that it chose: x (N,W) → (M,W), ordered by expert.
  func dispatch(_ x: Tensor<Self>, _ routing: Routing<Self>) -> Tensor<Self>
  /// Σ_k of a token's rows, times their weights when given: x (M,W), weights (M) → (N,W).
  func combine(_ x: Tensor<Self>, weights: Tensor<Self>?, _ routing: Routing<Self>) -> Tensor<Self>
  /// For each row its own expert's block of columns: x (N,E·r) → (M,r).
  func dispatchBlocks(_ x: Tensor<Self>, _ routing: Routing<Self>) -> Tensor<Self>
  /// The inverse: x (M,r) into its expert's block of columns, zero elsewhere, times the weights when given → (N,E·r).
  func combineBlocks(_ x: Tensor<Self>, weights: Tensor<Self>?, _ routing: Routing<Self>) -> Tensor<Self>
  /// c_e ← α a_e b_e + β c_e for every expert's rows: a (M,k), c (M,n), b a stack of E matrices (k,n).
  func groupedGemm(
    _ alpha: Double, _ a: Tensor<Self>, _ b: ExpertStack<Self>, _ beta: Double, into c: inout Tensor<Self>, _ routing: Routing<Self>)
  /// g_e += α a_eᵀ b_e over every expert's rows: a (M,p), b (M,q), g a stack of E matrices (p,q) along `axis`.
  func groupedOuter(
    _ alpha: Double, _ a: Tensor<Self>, _ b: Tensor<Self>, into g: inout Tensor<Self>, stackedAlong axis: ExpertStack<Self>.Axis,
    _ routing: Routing<Self>)
  /// `dropout` for rows ordered by expert: row m is that of its token under the key of its expert: x (M,W), keys (E).
  func dropout(
    _ x: Tensor<Self>, _ probability: Double, _ keys: [RandomKey], _ rows: RowIdentity<Self>, _ routing: Routing<Self>
  )
    -> Tensor<Self>

  // MARK: Optimiser

  /// What gradients are multiplied with so that their norm is at most `maximum` (0: no limit), as torch computes it.
  ///
  ///     norm = √squaredNorm      factor = min(1, maximum / (norm + 10⁻⁶))
  ///
  /// The factor is NaN if the norm or the loss is not finite: the optimisers then change nothing. All are vectors of one element.
  func clipFactor(_ squaredNorm: Tensor<Self>, loss: Tensor<Self>, maximum: Double) -> (factor: Tensor<Self>, norm: Tensor<Self>)

  /// One step of AdamW (Loshchilov & Hutter 2019) in torch's order: decay, moments, bias correction, update.
  ///
  ///     x ← x (1 − lr λ)      m ← m + (g − m)(1 − β₁)      v ← β₂ v + (1 − β₂) g²
  ///     x ← x − lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
  ///
  /// g is the gradient times `factor` (a vector of one element; nil is 1). If the factor is not finite, nothing changes.
  func adamW(
    _ x: inout Tensor<Self>, gradient: Tensor<Self>, factor: Tensor<Self>?, _ m: inout Tensor<Self>, _ v: inout Tensor<Self>,
    _ settings: AdamWSettings)
  /// One step of stochastic gradient descent with momentum μ in torch's form, g and `factor` as in `adamW`.
  ///
  ///     b ← μ b + g + λ x      x ← x − lr b
  func sgd(
    _ x: inout Tensor<Self>, gradient: Tensor<Self>, factor: Tensor<Self>?, momentum b: inout Tensor<Self>, _ settings: SGDSettings)
}

extension Backend {
  /// Nothing, for a backend without a pool.
  public func settle() {}
}

/// Sizes and rules of one attention operation.
public struct AttentionForm: Equatable, Sendable {
  /// Query heads H.
  public let heads: Int
  /// Key and value heads G; head h reads group h / (H / G).
  public let keyValueHeads: Int
  /// Width D of a head.
  public let headWidth: Int
  /// What scores are multiplied with, usually 1/√D.
  public let scale: Double
  /// Where each packed sequence begins, and N at the end: sequences + 1 row numbers, on the host.
  public let offsets: [Int]
  /// Rows that a row sees, itself included: row j ≤ i is visible when i − j < window; nil for all.
  public let window: Int?
  /// Where each sequence's rows of k and v lie, those of q being the last of them: attention over a cache of earlier rows.
  /// Nil where k and v have the rows of q and no others.
  public let keyRows: [Range<Int>]?

  /// Describes attention over the packed sequences of `offsets`.
  public init(
    heads: Int, keyValueHeads: Int, headWidth: Int, scale: Double, offsets: [Int], window: Int? = nil, keyRows: [Range<Int>]? = nil
  ) {
    self.heads = heads
    self.keyValueHeads = keyValueHeads
    self.headWidth = headWidth
    self.scale = scale
    self.offsets = offsets
    self.window = window
    self.keyRows = keyRows
  }

  /// Number of sequences.
  public var sequences: Int { offsets.count - 1 }
  /// The rows of q that are sequence `s`.
  public func queries(_ s: Int) -> Range<Int> { offsets[s]..<offsets[s + 1] }
  /// The rows of k and v that are sequence `s`; its last ones are those of its queries.
  public func keys(_ s: Int) -> Range<Int> { keyRows?[s] ?? queries(s) }
}

/// What a row is, so that random numbers depend neither on packing nor on micro-batches.
public struct RowIdentity<B: Backend> {
  /// The sample's number within the step: (N).
  public let samples: Indices<B>
  /// The position within the sample: (N).
  public let positions: Indices<B>
  /// The optimiser step.
  public let step: Int

  /// Names the rows of a batch.
  public init(samples: Indices<B>, positions: Indices<B>, step: Int) {
    self.samples = samples
    self.positions = positions
    self.step = step
  }
}

/// The numbers of one AdamW step.
public struct AdamWSettings: Equatable, Sendable {
  /// Learning rate lr.
  public var learningRate: Double
  /// Decay λ.
  public var weightDecay: Double
  /// Decay rate β₁ of the first moment.
  public var beta1 = 0.9
  /// Decay rate β₂ of the second moment.
  public var beta2 = 0.999
  /// ε, added to the root.
  public var epsilon = 1e-8
  /// The step t, counted from 1.
  public var step: Int

  /// torch's defaults but for what is given.
  public init(learningRate: Double, weightDecay: Double, step: Int) {
    self.learningRate = learningRate
    self.weightDecay = weightDecay
    self.step = step
  }
}

/// The numbers of one step of stochastic gradient descent.
public struct SGDSettings: Equatable, Sendable {
  /// Learning rate lr.
  public var learningRate: Double
  /// Decay λ, added to the gradient.
  public var weightDecay: Double
  /// Momentum μ.
  public var momentum: Double

  /// The given settings.
  public init(learningRate: Double, weightDecay: Double, momentum: Double) {
    self.learningRate = learningRate
    self.weightDecay = weightDecay
    self.momentum = momentum
  }
}
