import Tensors

extension NaiveBackend {
  /// A plan as plain lists, without the rows that are nobody's.
  func plan(_ routing: Routing<NaiveBackend>) -> Naive.Plan {
    let offsets = list(routing.offsets)
    let pairs = offsets[routing.experts]
    var plan = Naive.Plan(
      policy: routing.policy, tokens: routing.tokens, experts: routing.experts, choice: list(routing.choice),
      rowOfSlot: list(routing.rowOfSlot), tokenOfRow: list(routing.tokenOfRow[0..<pairs]), slotOfRow: list(routing.slotOfRow[0..<pairs]),
      offsets: offsets, weights: Array(list(routing.weights)[..<pairs]))
    plan.spareRows = routing.rows - pairs
    return plan
  }

  // MARK: Routing

  public func softmax(_ logits: Tensor<NaiveBackend>) -> Tensor<NaiveBackend> { operation { tensor(Naive.softmax(matrix(logits))) } }

  public func choose(_ p: Tensor<NaiveBackend>, _ policy: RoutingPolicy) -> Indices<NaiveBackend> {
    operation { indices(Naive.choose(matrix(p), policy)) }
  }

  public func route(_ p: Tensor<NaiveBackend>, choice: Indices<NaiveBackend>, _ policy: RoutingPolicy) -> Routing<NaiveBackend> {
    operation {
      let plan = Naive.route(matrix(p), choice: list(choice), policy)
      return Routing(
        policy: policy, tokens: plan.tokens, experts: plan.experts, rows: plan.rows, choice: choice, rowOfSlot: indices(plan.rowOfSlot),
        tokenOfRow: indices(plan.tokenOfRow), slotOfRow: indices(plan.slotOfRow), offsets: indices(plan.offsets),
        weights: tensor(plan.weights), counts: tensor((0..<plan.experts).map { Double(plan.rows(of: $0).count) }),
        firstCounts: tensor(plan.firstCounts))
    }
  }

  /// The shorter forms of `Backend`, which read the weights instead of forming them again.
  public func routerBackward(
    _ dw: Tensor<NaiveBackend>, _ p: Tensor<NaiveBackend>, _ routing: Routing<NaiveBackend>, balance: Tensor<NaiveBackend>
  ) -> Tensor<NaiveBackend> {
    operation {
      let (dw, p, plan, balance) = (list(dw), matrix(p), plan(routing), list(balance))
      let dlogits = Matrix(p.rows, p.columns) { n, j in
        let rows = plan.rows(ofToken: n)
        var (mean, inner) = (0.0, 0.0)
        for e in 0..<p.columns { mean += balance[e] * p[n, e] }
        for m in rows {
          switch plan.policy {
          case .topK: inner += plan.weights[m] * dw[m]  // Σ w dw
          case .topP: inner += p[n, plan.expert(ofRow: m)] * dw[m] / plan.policy.weightDivisor  // ⟨p, dp⟩
          }
        }
        var result = p[n, j] * (balance[j] - mean)
        switch plan.policy {
        case .topK:
          for m in rows where plan.expert(ofRow: m) == j { result += plan.weights[m] * (dw[m] - inner) }
        case .topP:
          result -= p[n, j] * inner
          for m in rows where plan.expert(ofRow: m) == j { result += p[n, j] * dw[m] / plan.policy.weightDivisor }
        }
        return result
      }
      return tensor(dlogits)
    }
  }

  public func dispatch(_ x: Tensor<NaiveBackend>, _ routing: Routing<NaiveBackend>) -> Tensor<NaiveBackend> {
    operation { tensor(Naive.dispatch(matrix(x), plan(routing))) }
  }

  public func combine(_ x: Tensor<NaiveBackend>, weights: Tensor<NaiveBackend>?, _ routing: Routing<NaiveBackend>)
    -> Tensor<NaiveBackend>
  {
    operation { tensor(Naive.combine(matrix(x), weights: weights.map { list($0) }, plan(routing))) }
  }

  public func dispatchBlocks(_ x: Tensor<NaiveBackend>, _ routing: Routing<NaiveBackend>) -> Tensor<NaiveBackend> {
    operation { tensor(Naive.dispatchBlocks(matrix(x), plan(routing))) }
  }

  public func combineBlocks(_ x: Tensor<NaiveBackend>, weights: Tensor<NaiveBackend>?, _ routing: Routing<NaiveBackend>)
    -> Tensor<NaiveBackend>
  {
    operation { tensor(Naive.combineBlocks(matrix(x), weights: weights.map { list($0) }, plan(routing))) }
  }

  public func groupedGemm(
    _ alpha: Double, _ a: Tensor<NaiveBackend>, _ b: ExpertStack<NaiveBackend>, _ beta: Double, into c: inout Tensor<NaiveBackend>,
    _ routing: Routing<NaiveBackend>
  ) {
    operation { write(Naive.groupedGemm(alpha, matrix(a), expert(b), beta, matrix(c), plan(routing)).values, &c) }
  }

  /// A stack's matrices as a product reads them.
  private func expert(_ stack: ExpertStack<NaiveBackend>) -> (_ e: Int) -> Matrix {
    let matrices = matrix(stack.matrices)
    return { e in
      let block = Naive.block(e, of: stack.experts, in: matrices, sideBySide: stack.axis == .columns)
      return stack.isTransposed ? block.transposed : block
    }
  }

  public func groupedOuter(
    _ alpha: Double, _ a: Tensor<NaiveBackend>, _ b: Tensor<NaiveBackend>, into g: inout Tensor<NaiveBackend>,
    stackedAlong axis: StackAxis, _ routing: Routing<NaiveBackend>
  ) {
    operation {
      let plan = plan(routing)
      write(Naive.groupedOuter(alpha, matrix(a), matrix(b), to: matrix(g), sideBySide: axis == .columns, plan).values, &g)
    }
  }

  public func expertProduct(
    _ alpha: Double, _ x: Tensor<NaiveBackend>, _ s: ExpertStack<NaiveBackend>, _ routing: Routing<NaiveBackend>
  ) -> Tensor<NaiveBackend> {
    operation { tensor(Naive.expertProduct(alpha, matrix(x), expert(s), plan(routing))) }
  }

  public func addExpertProducts(
    _ alpha: Double, _ t: Tensor<NaiveBackend>, weights: Tensor<NaiveBackend>?, _ s: ExpertStack<NaiveBackend>,
    into y: inout Tensor<NaiveBackend>, rows: Range<Int>, _ routing: Routing<NaiveBackend>
  ) {
    operation {
      let old = matrix(y)
      let new = Naive.expertProducts(
        alpha, matrix(t), weights: weights.map { list($0) }, expert(s), to: old.rows(rows), plan(routing))
      let (all, start, end) = (old.values, rows.lowerBound * old.columns, rows.upperBound * old.columns)
      write(all[..<start] + new.values + all[end...], &y)
    }
  }

  public func addExpertOuter(
    _ alpha: Double, _ t: Tensor<NaiveBackend>, weights: Tensor<NaiveBackend>?, _ x: Tensor<NaiveBackend>,
    into g: inout Tensor<NaiveBackend>, stackedAlong axis: StackAxis, _ routing: Routing<NaiveBackend>
  ) {
    operation {
      let result = Naive.expertOuter(
        alpha, matrix(t), weights: weights.map { list($0) }, matrix(x), to: matrix(g), sideBySide: axis == .columns, plan(routing))
      write(result.values, &g)
    }
  }

  // MARK: Optimizers

  public func clipFactor(_ squaredNorm: Tensor<NaiveBackend>, loss: Tensor<NaiveBackend>, maximum: Double)
    -> (factor: Tensor<NaiveBackend>, norm: Tensor<NaiveBackend>)
  {
    operation {
      let norm = list(squaredNorm)[0].squareRoot()
      return (tensor([Naive.clipFactor(norm: norm, loss: list(loss)[0], maximum: maximum)]), tensor([norm]))
    }
  }

  public func decoded(_ x: ByteBlocks<NaiveBackend>) -> Tensor<NaiveBackend> {
    operation {
      let (scales, map) = (list(x.scales), list(x.map))
      let codes = x.codes.storage.values.withUnsafeBytes { Array($0.prefix(x.shape.count)) }
      return T(storage: Storage(codes.indices.map { Scalar(scales[$0 / 256] * map[Int(codes[$0])]) }), shape: x.shape)
    }
  }

  public func encode(_ x: Tensor<NaiveBackend>, into y: inout ByteBlocks<NaiveBackend>, factor: Tensor<NaiveBackend>?) {
    operation {
      if let factor, !list(factor)[0].isFinite { return }
      let (values, map) = (list(x), list(y.map))
      let scales = Naive.blockScales(values)
      let codes = values.indices.map { UInt8(Naive.code(of: values[$0], scale: scales[$0 / 256], map)) }
      write(scales, &y.scales)
      write(list(y.codes), &y.codes)  // so that it is held alone
      y.codes.storage.values.withUnsafeMutableBytes { bytes in for i in codes.indices { bytes[i] = codes[i] } }
    }
  }

  public func adamW(
    _ x: inout Tensor<NaiveBackend>, gradient: Tensor<NaiveBackend>, factor: Tensor<NaiveBackend>?, _ m: inout Tensor<NaiveBackend>,
    _ v: inout Tensor<NaiveBackend>, _ settings: AdamWSettings, range: Range<Int>?
  ) {
    operation {
      let factor = factor.map { list($0)[0] } ?? 1
      guard factor.isFinite else { return }
      let g = list(gradient)
      var (newX, newM, newV) = (list(x), list(m), list(v))
      for i in range ?? 0..<g.count {
        (newX[i], newM[i], newV[i]) = Naive.adamW(newX[i], gradient: factor * g[i], newM[i], newV[i], settings)
      }
      write(newX, &x)
      write(newM, &m)
      write(newV, &v)
    }
  }

  public func sgd(
    _ x: inout Tensor<NaiveBackend>, gradient: Tensor<NaiveBackend>, factor: Tensor<NaiveBackend>?,
    momentum b: inout Tensor<NaiveBackend>, _ settings: SGDSettings, range: Range<Int>?
  ) {
    operation {
      let factor = factor.map { list($0)[0] } ?? 1
      guard factor.isFinite else { return }
      let g = list(gradient)
      var (newX, newB) = (list(x), list(b))
      for i in range ?? 0..<g.count {
        (newX[i], newB[i]) = Naive.sgd(newX[i], gradient: factor * g[i], momentum: newB[i], settings)
      }
      write(newX, &x)
      write(newB, &b)
    }
  }
}
