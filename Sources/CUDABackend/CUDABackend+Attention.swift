import CCUDA
import Tensors

extension CUDABackend {
  public func attention(_ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, _ plan: SequencePlan<Self>, _ form: AttentionForm)
    -> (output: Tensor<Self>, logSumExp: Tensor<Self>)
  {
    core.operation {
      let (output, outputs) = fresh(Shape(plan.rows, form.heads * form.headWidth))
      let (logSumExp, logSums) = fresh(Shape(plan.rows, form.heads))
      let (sequences, tile) = attentionTile("attention", q, k, v, plan, form)
      // One query a sequence is decoding: a block for each instead of a tile of one row.
      let areSingle = (0..<plan.sequences).allSatisfy { plan.queries($0).count <= 1 }
      launch(
        areSingle ? "attention_row_\(tile.width)" : "attention_\(tile.width)", blocks: blocks(plan, areSingle ? 1 : tile.queries),
        by: form.heads, threads: 256, rows(q), rows(k), rows(v), outputs, logSums, sequences, Scalar(form.scale),
        Scalar(form.softcap ?? 0))
      return (output, logSumExp)
    }
  }

  /// δ and dq by tiles of queries, then dk and dv by tiles of keys and by head of queries, whose sums follow where heads share keys.
  public func attentionBackward(
    _ dy: Tensor<Self>, _ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, output: Tensor<Self>, logSumExp: Tensor<Self>,
    _ plan: SequencePlan<Self>, _ form: AttentionForm
  ) -> (dq: Tensor<Self>, dk: Tensor<Self>, dv: Tensor<Self>) {
    core.operation {
      if plan.keyRows != nil { trap("attentionBackward: rows from before have no gradient") }
      requireShapes(
        "attentionBackward", ("dy", dy.shape, q.shape), ("output", output.shape, q.shape),
        ("logSumExp", logSumExp.shape, Shape(plan.rows, form.heads)))
      let (sequences, tile) = attentionTile("attentionBackward", q, k, v, plan, form)
      let (dq, dqs) = fresh(q.shape)
      let (dk, dks) = fresh(k.shape)
      let (dv, dvs) = fresh(v.shape)
      let (delta, deltas) = fresh(logSumExp.shape)
      let (scale, cap) = (Scalar(form.scale), Scalar(form.softcap ?? 0))
      launch(
        "attention_queries_\(tile.width)", blocks: blocks(plan, tile.queries), by: form.heads, threads: 256, rows(dy), rows(q), rows(k),
        rows(v), rows(output), rows(logSumExp), deltas, dqs, sequences, scale, cap)
      let group = form.heads / form.keyValueHeads
      let (dkOfHeads, dvOfHeads) = group == 1 ? (dk, dv) : (empty(q.shape), empty(q.shape))
      launch(
        "attention_keys_\(tile.width)", blocks: blocks(plan, tile.keys), by: form.heads, threads: 256, rows(dy), rows(q), rows(k),
        rows(v), rows(logSumExp), deltas, rows(dkOfHeads), rows(dvOfHeads), sequences, scale, cap)
      if group > 1 {
        launch(
          "attention_join", over: k.shape.count, rows(dkOfHeads), rows(dvOfHeads), dks, dvs, Int64(k.shape.count), Int32(k.columnCount),
          Int32(form.headWidth), Int32(group))
      }
      withExtendedLifetime((delta, dkOfHeads, dvOfHeads)) {}
      return (dq, dk, dv)
    }
  }

  /// As many blocks as there can be tiles of `size` rows, none of which crosses sequences.
  private func blocks(_ plan: SequencePlan<Self>, _ size: Int) -> Int { plan.rows == 0 ? 0 : plan.rows / size + plan.sequences }

  /// What kernels are told about sequences and heads, and the smallest tile that holds a head.
  private func attentionTile(
    _ operation: StaticString, _ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, _ plan: SequencePlan<Self>, _ form: AttentionForm
  ) -> (DeviceSequences, AttentionTile) {
    requireAttention(operation, q, k, v, plan, form)
    let d = form.headWidth
    guard let tile = AttentionTile.all.first(where: { d <= $0.width }) else {
      trap("\(operation): heads of \(d) columns, on a device at most 256")
    }
    let sequences = DeviceSequences(
      plan: address(plan.onDevice), count: Int32(plan.sequences), group: Int32(form.heads / form.keyValueHeads), width: Int32(d),
      window: Int32(clamping: form.window ?? .max))
    return (sequences, tile)
  }
}

/// The sequences of a batch as kernels see them; `struct sequences` of attention.cu.
struct DeviceSequences: BitwiseCopyable {
  let plan: cuda_address
  let count: Int32
  let group: Int32
  let width: Int32
  let window: Int32
}

/// Heads of up to `width` columns have kernels whose tiles have so many rows; `MX_ATTENTION` of attention.cu.
private struct AttentionTile {
  let width: Int
  let queries: Int
  let keys: Int

  static let all = [
    AttentionTile(width: 32, queries: 64, keys: 64), AttentionTile(width: 64, queries: 64, keys: 64),
    AttentionTile(width: 128, queries: 64, keys: 32), AttentionTile(width: 256, queries: 32, keys: 16),
  ]
}
