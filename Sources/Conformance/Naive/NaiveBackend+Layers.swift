import Tensors

extension NaiveBackend {
  // MARK: Norms and positions

  public func rmsNorm(_ x: Tensor<NaiveBackend>, _ weight: Tensor<NaiveBackend>, offset: Double, epsilon: Double)
    -> (y: Tensor<NaiveBackend>, rho: Tensor<NaiveBackend>)
  {
    operation {
      let found = Naive.rmsNorm(matrix(x), list(weight), offset: offset, epsilon: epsilon)
      return (tensor(found.y), tensor(found.rho))
    }
  }

  public func rmsNormBackward(
    _ dy: Tensor<NaiveBackend>, _ x: Tensor<NaiveBackend>, _ weight: Tensor<NaiveBackend>, offset: Double, rho: Tensor<NaiveBackend>,
    into dx: inout Tensor<NaiveBackend>
  ) {
    operation {
      let slopes = Naive.rmsNormBackward(matrix(dy), matrix(x), list(weight), offset: offset, rho: list(rho))
      write(Naive.add(1, slopes, to: matrix(dx)).values, &dx)
    }
  }

  public func rmsNormWeightGradient(
    _ dy: Tensor<NaiveBackend>, _ x: Tensor<NaiveBackend>, rho: Tensor<NaiveBackend>, into dweight: inout Tensor<NaiveBackend>
  ) {
    operation {
      let (old, gradient) = (list(dweight), Naive.rmsNormWeightGradient(matrix(dy), matrix(x), rho: list(rho)))
      write(old.indices.map { old[$0] + gradient[$0] }, &dweight)
    }
  }

  public func rope(_ x: inout Tensor<NaiveBackend>, positions: Indices<NaiveBackend>, table: Tensor<NaiveBackend>, inverse: Bool) {
    operation { write(Naive.rope(matrix(x), positions: list(positions), table: matrix(table), inverse: inverse).values, &x) }
  }

  // MARK: Attention

  public func attention(
    _ q: Tensor<NaiveBackend>, _ k: Tensor<NaiveBackend>, _ v: Tensor<NaiveBackend>, _ plan: SequencePlan<NaiveBackend>,
    _ form: AttentionForm
  ) -> (output: Tensor<NaiveBackend>, logSumExp: Tensor<NaiveBackend>) {
    operation {
      let sequences = Naive.Sequences(plan.offsets, keyRows: plan.keyRows)
      let found = Naive.attention(matrix(q), matrix(k), matrix(v), sequences, form)
      return (tensor(found.output), tensor(found.logSumExp))
    }
  }

  /// The definition needs neither the output nor log Σ exp.
  public func attentionBackward(
    _ dy: Tensor<NaiveBackend>, _ q: Tensor<NaiveBackend>, _ k: Tensor<NaiveBackend>, _ v: Tensor<NaiveBackend>,
    output: Tensor<NaiveBackend>, logSumExp: Tensor<NaiveBackend>, _ plan: SequencePlan<NaiveBackend>, _ form: AttentionForm
  ) -> (dq: Tensor<NaiveBackend>, dk: Tensor<NaiveBackend>, dv: Tensor<NaiveBackend>) {
    operation {
      let found = Naive.attentionBackward(matrix(dy), matrix(q), matrix(k), matrix(v), Naive.Sequences(plan.offsets), form)
      return (tensor(found.dq), tensor(found.dk), tensor(found.dv))
    }
  }

  // MARK: Gated units

  public func gated(_ activation: Activation, _ a: Tensor<NaiveBackend>, _ c: Tensor<NaiveBackend>) -> Tensor<NaiveBackend> {
    operation { tensor(Naive.gated(activation, matrix(a), matrix(c))) }
  }

  public func gatedBackward(_ activation: Activation, _ dh: Tensor<NaiveBackend>, _ a: Tensor<NaiveBackend>, _ c: Tensor<NaiveBackend>)
    -> (da: Tensor<NaiveBackend>, dc: Tensor<NaiveBackend>)
  {
    operation {
      let found = Naive.gatedBackward(activation, matrix(dh), matrix(a), matrix(c))
      return (tensor(found.da), tensor(found.dc))
    }
  }

  // MARK: Tokens and losses

  public func embedding(_ ids: Indices<NaiveBackend>, _ table: Operand<NaiveBackend>) -> Tensor<NaiveBackend> {
    operation { tensor(Naive.embedding(list(ids), matrix(table))) }
  }

  public func addEmbeddingGradient(
    _ alpha: Double, _ dy: Tensor<NaiveBackend>, _ ids: Indices<NaiveBackend>, into dtable: inout Tensor<NaiveBackend>
  ) {
    operation { write(Naive.addEmbeddingGradient(alpha, matrix(dy), list(ids), to: matrix(dtable)).values, &dtable) }
  }

  public func softcap(_ cap: Double, _ z: inout Tensor<NaiveBackend>) { operation { write(Naive.softcap(cap, matrix(z)).values, &z) } }

  public func crossEntropy(_ z: inout Tensor<NaiveBackend>, labels: Indices<NaiveBackend>, scale: Double, softcap: Double?)
    -> Tensor<NaiveBackend>
  {
    operation {
      let found = Naive.crossEntropy(matrix(z), labels: list(labels), scale: scale, softcap: softcap)
      write(found.gradient.values, &z)
      return tensor(found.loss)
    }
  }

  public func gather(_ x: Tensor<NaiveBackend>, rows: Indices<NaiveBackend>) -> Tensor<NaiveBackend> {
    operation { tensor(Naive.gather(matrix(x), rows: list(rows))) }
  }

  public func addScattered(_ x: Tensor<NaiveBackend>, rows: Indices<NaiveBackend>, into y: inout Tensor<NaiveBackend>) {
    operation { write(Naive.addScattered(matrix(x), rows: list(rows), to: matrix(y)).values, &y) }
  }

  // MARK: Dropout

  public func dropout(_ x: Tensor<NaiveBackend>, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<NaiveBackend>)
    -> Tensor<NaiveBackend>
  {
    operation {
      let mask = Naive.dropoutMask(
        x.columnCount, probability, key, samples: list(rows.samples), positions: list(rows.positions), step: rows.step)
      return tensor(Naive.dropout(matrix(x), mask: mask))
    }
  }

  public func dropout(
    _ x: Tensor<NaiveBackend>, _ probability: Double, _ key: RandomKey, _ rows: RowIdentity<NaiveBackend>, _ routing: Routing<NaiveBackend>
  ) -> Tensor<NaiveBackend> {
    operation {
      let mask = Naive.dropoutMask(
        x.columnCount, probability, key, samples: list(rows.samples), positions: list(rows.positions), step: rows.step, plan(routing))
      return tensor(Naive.dropout(matrix(x), mask: mask))
    }
  }
}
