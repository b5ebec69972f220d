import Tensors

/// Low-rank branches of one adapter on the three matrices of a feed-forward; without any, the feed-forward as it is.
/// ``FeedForward`` leads them and runs the products with W1, W3 and W2.
///
/// n rows of the adapter, F hidden width, r rank, s scale; u is x, g is h, with some elements dropped while training:
///
///     t1 = A1 u    t3 = A3 u           (n,r)
///     a = base1 + s B1 t1              (n,F)      da = dh ⊙ c ⊙ act′(a)        dt1 = s B1ᵀ da     dB1 += s Σ da t1ᵀ
///     c = base3 + s B3 t3              (n,F)      dc = dh ⊙ act(a)             dA1 += Σ dt1 uᵀ    du += A1ᵀ dt1        3 alike
///     h = act(a) ⊙ c                   (n,F)      dh = q + m ⊙ A2ᵀ dt2                            q = W2ᵀ dy
///     t2 = A2 g, g = m ⊙ h             (n,r)      dt2 = s B2ᵀ dy               dB2 += s Σ dy t2ᵀ  dA2 += Σ dt2 gᵀ
///     y += s B2 t2                     (n,C)
///
/// - Complexity: 6·n·r·(C + F) flops forward, twice that backward.
public struct DenseBranches<B: Backend> {
  /// Module path of the feed-forward: `model.layers.3.mlp`.
  public let path: String
  /// The number of the adapter; nil where there is none.
  public let adapter: Int?
  /// A1, B1 on W1.
  public let gate: LoRABranch<B>?
  /// A3, B3 on W3.
  public let up: LoRABranch<B>?
  /// A2, B2 on W2.
  public let down: LoRABranch<B>?
  private let hiddenDropout: InputDropout<B>?

  /// n·3·r scalars; a and c lie where base1 and base3 did, h is formed again.
  public struct Cache {
    let t1: Tensor<B>?  // (n,r)
    let t3: Tensor<B>?  // (n,r)
    let t2: Tensor<B>?  // (n,r)
  }

  /// Nothing: the rows of no adapter.
  public init(path: String) {
    self.path = path
    (adapter, gate, up, down, hiddenDropout) = (nil, nil, nil, nil, nil)
  }

  /// The branches of one adapter.
  ///
  /// - Parameters:
  ///   - path: the feed-forward's path, by which hooks know it; of several adapters each has its own.
  ///   - dropout: of what the branches on h read, by adapter, under the name of the feed-forward's input.
  public init(
    path: String, adapter: Int, gate: LoRABranch<B>?, up: LoRABranch<B>?, down: LoRABranch<B>?, hiddenDropout: InputDropout<B>
  ) {
    self.path = path
    self.adapter = adapter
    (self.gate, self.up, self.down) = (gate, up, down)
    self.hiddenDropout = hiddenDropout
  }

  /// Turns base1 and base3 into a and c on the adapter's rows; h (n,F).
  func forward(
    _ base1: inout Tensor<B>, _ base3: inout Tensor<B>, rows: Range<Int>, _ input: LoRAInput<B>, _ frozen: GatedLinears<B>,
    _ batch: PackedBatch<B>, _ run: Run<B>, kept: Cache? = nil
  ) -> (h: Tensor<B>, cache: Cache) {
    let (t1, t3) = kept.map { ($0.t1, $0.t3) } ?? (gate?.lowRank(input, run), up?.lowRank(input, run))  // (n,r)  A1 u, A3 u
    addBranches(t1, t3, to: &base1, &base3, rows: rows, run)
    let h = hidden(base1.rows(rows), base3.rows(rows), frozen, run)  // (n,F)
    let t2 = kept.map(\.t2) ?? down.map { run.backend.matmul(masked(h, batch, run), $0.a.value.T) }  // (n,r)  A2 g
    return (h, Cache(t1: t1, t3: t3, t2: t2))
  }

  /// Turns base1 and base3 into a and c on the adapter's rows, (n,F).
  func addBranches(
    _ t1: Tensor<B>?, _ t3: Tensor<B>?, to base1: inout Tensor<B>, _ base3: inout Tensor<B>, rows: Range<Int>, _ run: Run<B>
  ) {
    if let gate, let t1 { gate.addOutput(t1, into: &base1, rows: rows, run) }  // a = base1 + s B1 t1
    run.hook(rows: rows, of: &base1, path, "gate_proj.output", "a = W1 x + b1 + s B1 A1 u")
    if let up, let t3 { up.addOutput(t3, into: &base3, rows: rows, run) }  // c = base3 + s B3 t3
    run.hook(rows: rows, of: &base3, path, "up_proj.output", "c = W3 x + b3 + s B3 A3 u")
  }

  /// y += s B2 t2 on the adapter's rows.
  func addOutput(_ cache: Cache, into y: inout Tensor<B>, rows: Range<Int>, _ run: Run<B>) {
    if let down, let t2 = cache.t2 { run.backend.addProduct(down.scale, t2, down.b.value.T, into: &y, rows: rows) }
  }

  /// da, dc and h of the adapter's rows, (n,F) each, from dy (n,C) and q (N,F), of which these rows become dh.
  func backward(
    _ dy: Tensor<B>, q: inout Tensor<B>, rows: Range<Int>, _ a: Tensor<B>, _ c: Tensor<B>, _ cache: Cache, _ frozen: GatedLinears<B>,
    _ batch: PackedBatch<B>, _ run: Run<B>
  ) -> (da: Tensor<B>, dc: Tensor<B>, h: Tensor<B>) {
    let backend = run.backend
    let h = run.recomputing { hidden(a, c, frozen, run) }  // (n,F)
    // forward: y += s B2 t2, t2 = A2 g
    if let down, let t2 = cache.t2 {
      let dt2 = backend.matmul(down.scale, dy, down.b.value)  // (n,r)  s B2ᵀ dy
      backend.addProduct(down.scale, dy.T, t2, into: &down.b.gradient)  // (C,r)  + s dy t2ᵀ
      backend.addProduct(1, dt2.T, masked(h, batch, run), into: &down.a.gradient)  // (r,F)  + dt2 gᵀ
      backend.add(1, masked(backend.matmul(dt2, down.a.value), batch, run), into: &q, rows: rows)  // (n,F)  + m ⊙ A2ᵀ dt2
    }
    run.hook(rows: rows, ofGradient: &q, path, "down_proj.input")
    run.hook(rows: rows, ofGradient: &q, path, "hidden")
    // forward: h = act(a) ⊙ c
    let (da, dc) = backend.gatedBackward(frozen.activation, q.rows(rows), a, c)  // (n,F) each
    return (da, dc, h)
  }

  /// Backward of the branch on W3 or W1, from dc or da (n,F), which is what its base gets; adds to du of the adapter.
  func backwardInput(
    _ gradient: Tensor<B>, isUp: Bool, _ cache: Cache, _ input: LoRAInput<B>, into du: inout [Tensor<B>?], _ run: Run<B>
  ) -> Tensor<B> {
    var da = gradient
    run.hook(gradient: &da, path, isUp ? "up_proj.output" : "gate_proj.output")
    guard let branch = isUp ? up : gate, let t = isUp ? cache.t3 : cache.t1 else { return da }
    // forward: a += s B1 t1, t1 = A1 u
    branch.backward(da, input, t, into: &du, run)  // (n,C)  + A1ᵀ dt1
    return da
  }

  private func hidden(_ a: Tensor<B>, _ c: Tensor<B>, _ frozen: GatedLinears<B>, _ run: Run<B>) -> Tensor<B> {
    var h = run.backend.gated(frozen.activation, a, c)  // (n,F)  act(a) ⊙ c
    run.hook(&h, path, "hidden", "h = act(a) ⊙ c")
    run.hook(&h, path, "down_proj.input", "h")
    return h
  }

  private func masked(_ h: Tensor<B>, _ batch: PackedBatch<B>, _ run: Run<B>) -> Tensor<B> {
    guard let hiddenDropout, let adapter else { return h }
    return hiddenDropout.masked(h, adapter, batch, run)
  }
}
