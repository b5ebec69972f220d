/// What a device offers: buffers and the operations that a decoder with MixLoRA is made of.
///
/// A backend is an instance. Its pool, threads and counters belong to it, and one caller uses it at a time.
/// An operation works on whole tensors that stay on the device; it enqueues and does not throw. A wrong shape is
/// the caller's bug and traps at once with names and shapes. Indices out of range are the caller's bug as well: a backend traps at
/// once, or reports them at the next download or `synchronize` and has written nothing out of bounds. Only `download` and
/// `synchronize` wait.
///
/// Letters as everywhere: N rows (tokens), C channels, F hidden width, H heads, D head width, V vocabulary,
/// E experts, S slots of a token, M rows ordered by expert, r rank.
/// An operation that returns a tensor gives a fresh one (`vector`, and `dropout` that drops nothing, may give what is there already);
/// `into:` names what is written or added to.
/// The library Conformance holds the naive definition of each operation, which every backend is tested against.
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
  /// The relative error of one rounding inside a product, from which the bounds of the conformance suite follow: half an ulp of
  /// `Scalar` unless products run in a lower precision.
  var productRoundoff: Double { get }
  /// Labelled rows whose logits the head forms at a time.
  ///
  /// - Parameter weight: the head's matrix; one that has to be expanded first is worth more rows.
  func headRows(_ weight: Weight<Self>) -> Int
  /// Bytes that products and attention keep for themselves, beside their tensors, in a pass over sequences of at most `rows` rows.
  ///
  /// - Parameter weights: the matrices that are multiplied with; some may have to be expanded.
  func scratchBytes(rows: Int, _ weights: [Weight<Self>]) -> Int
  /// What operations take of memory beside their tensors while they run, and what they keep of it.
  var memoryUse: MemoryUse { get }

  // MARK: Memory

  /// A tensor whose contents are undefined until an operation writes them.
  func empty(_ shape: Shape) -> Tensor<Self>
  /// A tensor of zeros.
  func zeros(_ shape: Shape) -> Tensor<Self>
  /// Every element of x becomes `value`.
  func fill(_ value: Double, _ x: inout Tensor<Self>)
  /// A contiguous copy of `x` with storage of its own.
  func copy(_ x: Tensor<Self>) -> Tensor<Self>
  /// y[rows, columns] ← x; without a range, all of them.
  func copy(_ x: Tensor<Self>, into y: inout Tensor<Self>, rows: Range<Int>?, columns: Range<Int>?)
  /// y[rows[i]] ← x_i; no row is named twice: x (count,C), y (N,C).
  func copy(_ x: Tensor<Self>, into y: inout Tensor<Self>, rows: Indices<Self>)
  /// Moves row-major values to the device.
  ///
  /// - Precondition: `values.count` is `shape.count`.
  func upload(_ values: [Scalar], _ shape: Shape) -> Tensor<Self>
  /// Moves row-major little-endian bytes of a file, aligned or not, to the device and decodes them.
  ///
  /// - Precondition: a row is a whole number of the format's blocks, and there are bytes for all rows.
  func upload(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> Tensor<Self>
  /// Moves whole numbers to the device.
  func upload(_ values: [Int32]) -> Indices<Self>
  /// The row-major values of each tensor, once everything that they depend on is done.
  ///
  /// - Complexity: one wait for all of them, and a copy of their elements.
  func download(_ tensors: [Tensor<Self>]) throws -> [[Scalar]]
  /// The integers, once everything that they depend on is done.
  ///
  /// - Complexity: a wait, and a copy.
  func download(_ indices: Indices<Self>) throws -> [Int32]
  /// Keeps a weight that never changes, from the bytes of a file.
  func freeze(_ bytes: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) -> FrozenMatrix
  /// Keeps a tensor as a weight that never changes.
  func freeze(_ tensor: Tensor<Self>) -> FrozenMatrix
  /// A frozen vector (a norm's weight, a bias) as a tensor; vectors are not kept encoded.
  func vector(_ frozen: FrozenMatrix) -> Tensor<Self>
  /// Says that the longest batch of the run has been seen: from here on, shorter ones live from its buffers.
  func endWarmUp()
  /// Waits for everything enqueued and reports what went wrong on the device.
  func synchronize() throws
  /// Random numbers: element i of the row-major result comes from number i % 4 of Philox block i / 4 under `key`.
  ///
  /// Uniform: the number's upper 24 bits, so that both precisions draw the same. Normal: Box–Muller on the numbers of a
  /// block in pairs, in float64: √(−2 ln u) cos 2πu′ and √(−2 ln u) sin 2πu′.
  func random(_ shape: Shape, _ distribution: Distribution, _ key: RandomKey) -> Tensor<Self>

  // MARK: Elementwise and sums

  /// y[rows] += α x, for equal shapes; without a range, all rows.
  func add(_ alpha: Double, _ x: Tensor<Self>, into y: inout Tensor<Self>, rows: Range<Int>?)
  /// x ← α x.
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

  /// c[rows] ← α a b + β c[rows]: a (m,k), b (k,n), c[rows] (m,n); without a range, all rows. With β = 0, c is not read.
  func gemm(
    _ alpha: Double, _ a: Operand<Self>, _ b: Operand<Self>, _ beta: Double, into c: inout Tensor<Self>, rows: Range<Int>?)

  // MARK: Norms and positions

  /// y = ρ x ⊙ (offset + weight) with ρ = 1/√(mean x² + ε), per row: x (N,C), weight (C) → y (N,C), ρ (N).
  func rmsNorm(_ x: Tensor<Self>, _ weight: Tensor<Self>, offset: Double, epsilon: Double) -> (y: Tensor<Self>, rho: Tensor<Self>)
  /// dx += ρ (dy ⊙ w) − x ρ³ ⟨dy ⊙ w, x⟩ / C, per row, with w = offset + weight.
  func rmsNormBackward(
    _ dy: Tensor<Self>, _ x: Tensor<Self>, _ weight: Tensor<Self>, offset: Double, rho: Tensor<Self>, into dx: inout Tensor<Self>)
  /// dweight += Σ_n ρ_n dy_n ⊙ x_n: (C).
  func rmsNormWeightGradient(_ dy: Tensor<Self>, _ x: Tensor<Self>, rho: Tensor<Self>, into dweight: inout Tensor<Self>)
  /// Rotates pairs (j, j + D/2) of every head of x (N,H·D) by the angle of the row's position; `inverse` turns back.
  ///
  /// The table (P,D) holds cos in its first D/2 columns and sin in the others; positions (N) choose its rows.
  func rope(_ x: inout Tensor<Self>, positions: Indices<Self>, table: Tensor<Self>, inverse: Bool)

  // MARK: Attention

  /// Causal attention within each sequence of the plan, and within its window where the form has one: q (N,H·D), k and v (N,G·D) →
  /// output (N,H·D), log Σ exp of the scores (N,H).
  ///
  ///     s_ij = scale ⟨q_i, k_j⟩, with a soft cap: cap · tanh(s_ij / cap)       o_i = Σ_j softmax_j(s_i) v_j
  ///
  /// With ``SequencePlan/keyRows`` k and v (P,G·D) also hold the rows that came before those of q.
  /// A value that is not finite may spread to every row of its own sequence (0 · NaN is NaN), never to another's.
  ///
  /// - Complexity: about 2·H·D flops for every visible pair (i, j) in each of two products.
  func attention(_ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, _ plan: SequencePlan<Self>, _ form: AttentionForm)
    -> (output: Tensor<Self>, logSumExp: Tensor<Self>)
  /// The gradients of `attention` for dy (N,H·D); the probabilities are formed again from `logSumExp`, and ⟨dy, output⟩ may stand for
  /// Σ_j P_ij dP_ij.
  ///
  /// - Precondition: the plan has no `keyRows`.
  func attentionBackward(
    _ dy: Tensor<Self>, _ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, output: Tensor<Self>, logSumExp: Tensor<Self>,
    _ plan: SequencePlan<Self>, _ form: AttentionForm
  ) -> (dq: Tensor<Self>, dk: Tensor<Self>, dv: Tensor<Self>)

  // MARK: Gated units

  /// h = act(a) ⊙ c: a, c (M,F) → (M,F).
  func gated(_ activation: Activation, _ a: Tensor<Self>, _ c: Tensor<Self>) -> Tensor<Self>
  /// da = dh ⊙ c ⊙ act′(a) and dc = dh ⊙ act(a), for h = act(a) ⊙ c.
  func gatedBackward(_ activation: Activation, _ dh: Tensor<Self>, _ a: Tensor<Self>, _ c: Tensor<Self>)
    -> (da: Tensor<Self>, dc: Tensor<Self>)

  // MARK: Tokens and losses

  /// Rows of the table: ids (N), table (V,C) → (N,C).
  func embedding(_ ids: Indices<Self>, _ table: Operand<Self>) -> Tensor<Self>
  /// dtable[ids[n]] += α dy_n, in the order of n: dy (N,C), dtable (V,C).
  func addEmbeddingGradient(_ alpha: Double, _ dy: Tensor<Self>, _ ids: Indices<Self>, into dtable: inout Tensor<Self>)
  /// z ← cap · tanh(z / cap).
  func softcap(_ cap: Double, _ z: inout Tensor<Self>)
  /// loss_n = −log softmax(z_n)[label_n]; z (N,V) becomes the gradient of its scaled sum, scale · (softmax − onehot).
  ///
  /// With a soft cap c the loss is that of y = c · tanh(z / c), and the gradient, that of z, has the factor 1 − (y / c)².
  func crossEntropy(_ z: inout Tensor<Self>, labels: Indices<Self>, scale: Double, softcap: Double?) -> Tensor<Self>
  /// The rows of x that `rows` names: x (N,C) → (count,C).
  func gather(_ x: Tensor<Self>, rows: Indices<Self>) -> Tensor<Self>
  /// y[rows[i]] += x_i; no row is named twice: x (count,C), y (N,C).
  func addScattered(_ x: Tensor<Self>, rows: Indices<Self>, into y: inout Tensor<Self>)

  // MARK: Dropout

  /// m ⊙ x with the mask m of `key`: 1/(1−p) with probability 1−p, else 0. Forward and backward alike.
  ///
  /// p is drawn in 2⁻¹⁶: with q = round(p·2¹⁶), element j of row n is kept when the j % 8-th 16-bit number of Philox block
  /// (step, sample_n, position_n, j / 8), the lower half of each word first, is ≥ q; the factor is 1/(1 − q/2¹⁶).
  /// With q = 0 it is x itself; what is dropped becomes 0 whatever it was.
  func dropout(_ x: Tensor<Self>, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<Self>) -> Tensor<Self>
  /// `dropout` for rows ordered by expert: row m is that of its token under `key.derived(expert)`: x (M,W).
  func dropout(
    _ x: Tensor<Self>, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<Self>, _ routing: Routing<Self>
  ) -> Tensor<Self>

  // MARK: Routing

  /// softmax of each row: (N,E) → (N,E).
  func softmax(_ logits: Tensor<Self>) -> Tensor<Self>
  /// The experts that a policy picks of each row of p (N,E), largest first, ties to the lower index: (N·S), −1 where a slot has none.
  ///
  /// NaN counts as −∞.
  func choose(_ p: Tensor<Self>, _ policy: RoutingPolicy) -> Indices<Self>
  /// Orders the chosen pairs by expert, then token, with the weights of the policy.
  ///
  /// - Precondition: a choice names an expert at most once per token.
  func route(_ p: Tensor<Self>, choice: Indices<Self>, _ policy: RoutingPolicy) -> Routing<Self>
  /// The gradient of the router's logits: dw (M) in expert order, p (N,E), balance (E), the balance loss's for each row of p → (N,E).
  ///
  ///     top-K     dz_j = w_j (dw_j − Σ_i w_i dw_i) on the chosen            the sum over the full softmax cancels in w
  ///     top-P     dp_j = dw_j / t on the chosen                             dz = p ⊙ (dp − ⟨dp, p⟩)
  ///     both      dz += p ⊙ (balance − ⟨balance, p⟩)
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
    _ alpha: Double, _ a: Tensor<Self>, _ b: Tensor<Self>, into g: inout Tensor<Self>, stackedAlong axis: StackAxis,
    _ routing: Routing<Self>)
  /// y_m = α x_n S_e for the token n and the expert e of every row m: x (N,k), S a stack of E matrices (k,n) → (M,n).
  ///
  /// - Precondition: the matrices lie side by side, or transposed below each other.
  func expertProduct(_ alpha: Double, _ x: Tensor<Self>, _ s: ExpertStack<Self>, _ routing: Routing<Self>) -> Tensor<Self>
  /// y_n += α Σ w_m t_m S_e over the rows m of every token n, the rows of y that `rows` names: t (M,k), S a stack of E matrices (k,n),
  /// y (…,n). Without weights (M), w = 1.
  ///
  /// - Precondition: the matrices lie below each other, or transposed side by side.
  func addExpertProducts(
    _ alpha: Double, _ t: Tensor<Self>, weights: Tensor<Self>?, _ s: ExpertStack<Self>, into y: inout Tensor<Self>, rows: Range<Int>,
    _ routing: Routing<Self>)
  /// g_e += α Σ w_m t_mᵀ x_n over the rows m of every expert e, n the token of each: t (M,p), x (N,q), g a stack of E matrices (p,q) along
  /// the rows; along the columns g_e is the transposed (q,p). Without weights (M), w = 1.
  func addExpertOuter(
    _ alpha: Double, _ t: Tensor<Self>, weights: Tensor<Self>?, _ x: Tensor<Self>, into g: inout Tensor<Self>,
    stackedAlong axis: StackAxis, _ routing: Routing<Self>)
  /// What t = x S_eᵀ needs backward, from dt (M,r): x (N,C), S a stack of E matrices (r,C) below each other, g like it.
  ///
  ///     g_e += Σ dt_mᵀ x_n over the rows m of expert e, n the token of each
  ///     dx_n += Σ dt_m S_e over the rows m of token n; a dx of nil counts as zero
  func addExpertGradients(
    _ dt: Tensor<Self>, _ x: Tensor<Self>, _ s: ExpertStack<Self>, into g: inout Tensor<Self>, _ dx: inout Tensor<Self>?,
    _ routing: Routing<Self>)
  /// The hidden rows of the experts in one pass; see ``ExpertHidden``. Nil where the backend has no such pass.
  func expertHidden(_ hidden: ExpertHidden<Self>, _ routing: Routing<Self>) -> ExpertHidden<Self>.Result?
  /// Backward of `expertHidden`; nil exactly where `expertHidden` gives nil.
  func expertHiddenBackward(_ q: Tensor<Self>, z: Tensor<Self>?, _ hidden: ExpertHidden<Self>, _ routing: Routing<Self>)
    -> ExpertHidden<Self>.Gradient?

  // MARK: Optimizers

  /// What is kept in 8 bits, as numbers.
  func decoded(_ x: ByteBlocks<Self>) -> Tensor<Self>
  /// Keeps x in 8 bits: codes and scales are written. If `factor` is not finite, nothing changes.
  func encode(_ x: Tensor<Self>, into y: inout ByteBlocks<Self>, factor: Tensor<Self>?)
  /// What gradients are multiplied with so that their norm is at most `maximum` (0: no limit), as torch computes it.
  ///
  ///     norm = √squaredNorm      factor = min(1, maximum / (norm + 10⁻⁶))
  ///
  /// The factor is NaN if the norm or the loss is not finite: the optimizers then change nothing. All are vectors of one element.
  func clipFactor(_ squaredNorm: Tensor<Self>, loss: Tensor<Self>, maximum: Double) -> (factor: Tensor<Self>, norm: Tensor<Self>)
  /// One step of AdamW over the elements `range` of x, m and v (n) and the gradient (n); without a range, all of them.
  ///
  ///     x ← x (1 − lr λ)      m ← m + (g − m)(1 − β₁)      v ← β₂ v + (1 − β₂) g²
  ///     x ← x − lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
  ///
  /// g is the gradient times `factor` (a vector of one element; nil is 1). If the factor is not finite, nothing changes.
  func adamW(
    _ x: inout Tensor<Self>, gradient: Tensor<Self>, factor: Tensor<Self>?, _ m: inout Tensor<Self>, _ v: inout Tensor<Self>,
    _ settings: AdamWSettings, range: Range<Int>?)
  /// One step of stochastic gradient descent with momentum μ in torch's form, g, `factor` and `range` as in `adamW`.
  ///
  ///     b ← μ b + g + λ x      x ← x − lr b
  func sgd(
    _ x: inout Tensor<Self>, gradient: Tensor<Self>, factor: Tensor<Self>?, momentum b: inout Tensor<Self>, _ settings: SGDSettings,
    range: Range<Int>?)
}

extension Backend {
  /// Half an ulp of 1.
  public var productRoundoff: Double { Double(Scalar.ulpOfOne) / 2 }
  /// Enough for a product to run at full speed, few enough for 128·V logits to stay small.
  public func headRows(_ weight: Weight<Self>) -> Int { 128 }
  /// None.
  public func scratchBytes(rows: Int, _ weights: [Weight<Self>]) -> Int { 0 }
  /// That of the definitions.
  public var memoryUse: MemoryUse { MemoryUse(scalarBytes: MemoryLayout<Scalar>.size) }
  /// Nothing, for a backend without a pool.
  public func endWarmUp() {}
  /// Nil: this backend runs the lines that one reads.
  public func expertHidden(_ hidden: ExpertHidden<Self>, _ routing: Routing<Self>) -> ExpertHidden<Self>.Result? { nil }
  /// Nil: this backend runs the lines that one reads.
  public func expertHiddenBackward(_ q: Tensor<Self>, z: Tensor<Self>?, _ hidden: ExpertHidden<Self>, _ routing: Routing<Self>)
    -> ExpertHidden<Self>.Gradient?
  { nil }

  // All experts at once: products E times as large, of which each token's own experts count.

  /// For all experts, then for each row its own expert's columns.
  public func expertProduct(_ alpha: Double, _ x: Tensor<Self>, _ s: ExpertStack<Self>, _ routing: Routing<Self>) -> Tensor<Self> {
    dispatchBlocks(matmul(alpha, x, s.joined(along: .columns)), routing)
  }
  /// With t in the columns of a token's experts and zeros elsewhere.
  public func addExpertProducts(
    _ alpha: Double, _ t: Tensor<Self>, weights: Tensor<Self>?, _ s: ExpertStack<Self>, into y: inout Tensor<Self>, rows: Range<Int>,
    _ routing: Routing<Self>
  ) {
    addProduct(alpha, combineBlocks(t, weights: weights, routing), s.joined(along: .rows), into: &y, rows: rows)
  }
  /// With t in the columns of a token's experts and zeros elsewhere.
  public func addExpertOuter(
    _ alpha: Double, _ t: Tensor<Self>, weights: Tensor<Self>?, _ x: Tensor<Self>, into g: inout Tensor<Self>,
    stackedAlong axis: StackAxis, _ routing: Routing<Self>
  ) {
    let all = combineBlocks(t, weights: weights, routing)  // (N,E·p)
    switch axis {
    case .rows: addProduct(alpha, all.T, x, into: &g)
    case .columns: addProduct(alpha, x.T, all, into: &g)
    }
  }

  /// With dt in the columns of a token's experts and zeros elsewhere, formed once for both.
  public func addExpertGradients(
    _ dt: Tensor<Self>, _ x: Tensor<Self>, _ s: ExpertStack<Self>, into g: inout Tensor<Self>, _ dx: inout Tensor<Self>?,
    _ routing: Routing<Self>
  ) {
    let all = combineBlocks(dt, weights: nil, routing)  // (N,E·r)
    addProduct(1, all.T, x, into: &g)
    addProduct(1, all, s.joined(along: .rows), into: &dx)
  }

  // MARK: Shorter calls

  /// y ← x.
  public func copy(_ x: Tensor<Self>, into y: inout Tensor<Self>) { copy(x, into: &y, rows: nil, columns: nil) }
  /// y[rows] ← x.
  public func copy(_ x: Tensor<Self>, into y: inout Tensor<Self>, rows: Range<Int>) { copy(x, into: &y, rows: rows, columns: nil) }
  /// y += α x.
  public func add(_ alpha: Double, _ x: Tensor<Self>, into y: inout Tensor<Self>) { add(alpha, x, into: &y, rows: nil) }
  /// The row-major values of `x`: a wait of its own.
  public func download(_ x: Tensor<Self>) throws -> [Scalar] { try download([x])[0] }
}
