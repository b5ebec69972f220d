import Tensors

extension CPUBackend {
  public func softmax(_ logits: Tensor<Self>) -> Tensor<Self> {
    core.timed("softmax") {
      let (p, ps) = fresh(logits.shape)
      let xs = rows(logits)
      forRanges(xs.count, cost: 10 * xs.width) { rows in
        for n in rows {
          let p = ps[n]
          p.update(from: xs[n], count: xs.width)
          let sum = Scalar.exponentials(p, xs.width, minus: Scalar.maximum(p, xs.width))
          Scalar.scale(p, 0..<xs.width, by: Scalar(1 / sum))
        }
      }
      return p
    }
  }

  /// A row of NaN chooses 0, 1, …; the sum that meets the threshold is formed in Double.
  ///
  /// - Complexity: N·S·E comparisons.
  public func choose(_ p: Tensor<Self>, _ policy: RoutingPolicy) -> Indices<Self> {
    core.timed("choose") {
      let e = p.columnCount
      let s = policy.slots(of: e)
      guard s >= 0, s <= e else { trap("choose: the \(s) largest of p \(p.shape)") }
      let choice = freshIndices(p.rowCount * s)
      let (ps, to) = (rows(p), integers(choice))
      var (threshold, divisor) = (Double.infinity, 1.0)
      if case .topP(let limit, _) = policy { (threshold, divisor) = (limit, policy.weightDivisor) }
      forRanges(ps.count, cost: 2 * s * e) { rows in
        for n in rows {
          let p = ps[n]
          var (last, lastValue) = (-1, Scalar.infinity)
          var sum = 0.0
          for slot in n * s..<(n + 1) * s {
            if sum > threshold {
              to[slot] = -1
              continue
            }
            // The best of those that come after the last choice in the order (value falling, index rising).
            var (best, bestValue) = (-1, -Scalar.infinity)
            for j in 0..<e {
              let value = p[j].isNaN ? -Scalar.infinity : p[j]
              guard value < lastValue || (value == lastValue && j > last) else { continue }
              if best < 0 || value > bestValue { (best, bestValue) = (j, value) }
            }
            to[slot] = Int32(best)
            (last, lastValue) = (best, bestValue)
            sum += Double(bestValue) / divisor
          }
        }
      }
      return choice
    }
  }

  /// A stable counting sort on the calling thread. There are as many rows as pairs.
  public func route(_ p: Tensor<Self>, choice: Indices<Self>, _ policy: RoutingPolicy) -> Routing<Self> {
    core.timed("route") {
      let (n, e) = (p.rowCount, p.columnCount)
      let s = policy.slots(of: e)
      guard choice.count == n * s else { trap("route: \(choice.count) slots, expected \(n)·\(s) for p \(p.shape)") }
      let (rowOfSlot, offsets) = (freshIndices(n * s), freshIndices(e + 1))
      let (counts, cs) = fresh(Shape(e))
      let (firstCounts, firsts) = fresh(Shape(e))
      let (ps, chosen, offset) = (rows(p), integers(choice), integers(offsets))

      offset.update(repeating: 0, count: e + 1)
      firsts.base.update(repeating: 0, count: e)
      for token in 0..<n {
        for slot in token * s..<(token + 1) * s {
          let expert = Int(chosen[slot])
          guard expert >= -1, expert < e else {
            trap("route: slot \(slot - token * s) of token \(token) is expert \(expert), there are \(e)")
          }
          if expert < 0 { continue }
          for other in token * s..<slot where chosen[other] == chosen[slot] { trap("route: token \(token) chooses expert \(expert) twice") }
          offset[expert + 1] += 1
          if slot == token * s { firsts.base[expert] += 1 }
        }
      }
      let next = core.pool.buffer(e, of: Int32.self)
      for j in 0..<e {
        cs.base[j] = Scalar(offset[j + 1])
        offset[j + 1] += offset[j]
        next.pointer[j] = offset[j]
      }
      let m = Int(offset[e])
      let (tokenOfRow, slotOfRow) = (freshIndices(m), freshIndices(m))
      let (rowOf, tokenOf, slotOf) = (integers(rowOfSlot), integers(tokenOfRow), integers(slotOfRow))
      let (weights, ws) = fresh(Shape(m))
      for token in 0..<n {
        let (p, slots) = (ps[token], token * s..<(token + 1) * s)
        var divisor = Scalar(policy.weightDivisor)
        if case .topK = policy {
          divisor = 0
          for slot in slots where chosen[slot] >= 0 { divisor += p[Int(chosen[slot])] }
        }
        for slot in slots {
          let expert = Int(chosen[slot])
          if expert < 0 {
            rowOf[slot] = -1
            continue
          }
          let row = Int(next.pointer[expert])
          next.pointer[expert] += 1
          rowOf[slot] = Int32(row)
          tokenOf[row] = Int32(token)
          slotOf[row] = Int32(slot)
          ws.base[row] = p[expert] / divisor
        }
      }
      withExtendedLifetime(next) {}
      return Routing(
        policy: policy, tokens: n, experts: e, rows: m, choice: choice, rowOfSlot: rowOfSlot, tokenOfRow: tokenOfRow, slotOfRow: slotOfRow,
        offsets: offsets, weights: weights, counts: counts, firstCounts: firstCounts)
    }
  }

  public func routerBackward(_ dw: Tensor<Self>, _ p: Tensor<Self>, _ routing: Routing<Self>, balance: Tensor<Self>) -> Tensor<Self> {
    core.timed("routerBackward") {
      let (n, e, s) = (routing.tokens, routing.experts, routing.slots)
      requireShapes(
        "routerBackward", ("dw", dw.shape, Shape(routing.rows)), ("p", p.shape, Shape(n, e)), ("balance", balance.shape, Shape(e)))
      let (dlogits, to) = fresh(Shape(n, e))
      let (dws, ps, b, w) = (rows(dw).base, rows(p), rows(balance).base, rows(routing.weights).base)
      let (row, expert) = (integers(routing.rowOfSlot), integers(routing.choice))
      var isRenormalized = false
      if case .topK = routing.policy { isRenormalized = true }
      let divisor = Scalar(routing.policy.weightDivisor)
      forRanges(n, cost: 4 * e) { rows in
        for n in rows {
          let (p, d, slots) = (ps[n], to[n], n * s..<(n + 1) * s)
          let mean = Scalar(Scalar.dot(b, p, 0..<e))
          for i in Scalar.lanes(0..<e) { d[i] = p[i] * (b[i] - mean) }
          var sum: Scalar = 0
          if isRenormalized {
            for slot in slots where row[slot] >= 0 { sum += w[Int(row[slot])] * dws[Int(row[slot])] }  // Σ w dw
            for slot in slots where row[slot] >= 0 {
              let m = Int(row[slot])
              d[Int(expert[slot])] += w[m] * (dws[m] - sum)
            }
          } else {
            for slot in slots where row[slot] >= 0 { sum += p[Int(expert[slot])] * (dws[Int(row[slot])] / divisor) }  // ⟨p, dp⟩
            for i in Scalar.lanes(0..<e) { d[i] = d[i] - sum * p[i] }
            for slot in slots where row[slot] >= 0 {
              let j = Int(expert[slot])
              d[j] += p[j] * (dws[Int(row[slot])] / divisor)
            }
          }
        }
      }
      return dlogits
    }
  }
}
