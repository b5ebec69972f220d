import CCUDA
import Tensors

extension CUDABackend {
  public func softmax(_ logits: Tensor<Self>) -> Tensor<Self> {
    core.operation {
      let (p, ps) = fresh(logits.shape)
      launch("softmax", over: 32 * logits.rowCount, rows(logits), ps, Int32(logits.rowCount), Int32(logits.columnCount))
      return p
    }
  }

  public func choose(_ p: Tensor<Self>, _ policy: RoutingPolicy) -> Indices<Self> {
    core.operation {
      let e = p.columnCount
      let s = policy.slots(of: e)
      guard s >= 0, s <= e else { trap("choose: the \(s) largest of p \(p.shape)") }
      let choice = freshIndices(p.rowCount * s)
      var threshold = Double.infinity
      if case .topP(let limit, _) = policy { threshold = limit }
      launch(
        "choose", over: 32 * p.rowCount, rows(p), address(choice), Int32(p.rowCount), Int32(e), Int32(s), threshold, policy.weightDivisor)
      return choice
    }
  }

  /// There are as many rows as slots: the host does not know the number of pairs.
  public func route(_ p: Tensor<Self>, choice: Indices<Self>, _ policy: RoutingPolicy) -> Routing<Self> {
    core.operation {
      let (n, e) = (p.rowCount, p.columnCount)
      let s = policy.slots(of: e)
      guard choice.count == n * s else { trap("route: \(choice.count) slots, expected \(n)·\(s) for p \(p.shape)") }
      let (rowOfSlot, tokenOfRow, slotOfRow) = (freshIndices(n * s), freshIndices(n * s), freshIndices(n * s))
      let offsets = freshIndices(e + 1)
      let (weights, ws) = fresh(Shape(n * s))
      let (counts, cs) = fresh(Shape(e))
      let (firstCounts, firsts) = fresh(Shape(e))
      let threads = threads(forRow: (n + 3) / 4, most: 512)  // so that a thread has some tokens
      let next = freshIndices(2 * e * threads)
      launch(
        "route", blocks: 1, threads: threads, rows(p), address(choice), Int32(n), Int32(s), Int32(e), divisor(policy),
        address(rowOfSlot), address(tokenOfRow), address(slotOfRow), address(offsets), ws.base, cs.base, firsts.base, address(next),
        errorWord(.route))
      withExtendedLifetime(next) {}
      return Routing(
        policy: policy, tokens: n, experts: e, rows: n * s, choice: choice, rowOfSlot: rowOfSlot, tokenOfRow: tokenOfRow,
        slotOfRow: slotOfRow, offsets: offsets, weights: weights, counts: counts, firstCounts: firstCounts)
    }
  }

  public func routerBackward(_ dw: Tensor<Self>, _ p: Tensor<Self>, _ routing: Routing<Self>, balance: Tensor<Self>) -> Tensor<Self> {
    core.operation {
      let (n, e) = (routing.tokens, routing.experts)
      requireShapes(
        "routerBackward", ("dw", dw.shape, Shape(routing.rows)), ("p", p.shape, Shape(n, e)), ("balance", balance.shape, Shape(e)))
      let (dlogits, to) = fresh(Shape(n, e))
      launch(
        "router_backward", over: 32 * n, address(dw), rows(p), address(balance), address(routing.weights), address(routing.rowOfSlot),
        address(routing.choice), to, Int32(n), Int32(e), Int32(routing.slots), divisor(routing.policy))
      return dlogits
    }
  }

  /// What kernels divide p by to get weights: 0 stands for the sum over a token's choices.
  private func divisor(_ policy: RoutingPolicy) -> Scalar {
    if case .topK = policy { 0 } else { Scalar(policy.weightDivisor) }
  }
}
