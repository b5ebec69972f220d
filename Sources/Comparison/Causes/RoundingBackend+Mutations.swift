import Conformance
import Platform
import Tensors

// What the oracle computes under a mutation, in plain loops on the host: small, and read beside the right operation's definition.
extension RoundingBackend {
  // MARK: Rotary embedding

  /// The values of x turned as a mistaken program would; nil for a mutation of something else.
  func mistakenRotation(
    _ x: Tensor<RoundingBackend>, _ positions: Indices<RoundingBackend>, _ table: Tensor<RoundingBackend>, inverse: Bool
  )
    -> [Double]?
  {
    guard let mutation, let values = try? exact.download(inner(x)), let p = try? exact.download(inner(positions)),
      let angles = try? exact.download(inner(table))
    else { return nil }
    let (width, half, rows) = (table.columnCount, table.columnCount / 2, table.rowCount)
    var (inverse, shift, pairs) = (inverse, 0, false)
    var shifts: [Int] = []
    var base: Double?
    switch mutation {
    case .rotaryPairs: pairs = true
    case .rotaryOffset(let by): shift = by
    case .rotaryShifts(let each):
      guard each.count == x.rowCount else { return nil }
      shifts = each
    case .rotaryInverse: inverse.toggle()
    case .rotaryBase(let other): base = other
    case .rotaryMissing: return values
    default: return nil
    }
    var y = values
    let columns = x.columnCount
    for n in 0..<x.rowCount {
      let position = Int(p[n]) + shift + (shifts.isEmpty ? 0 : shifts[n])
      for head in stride(from: 0, to: columns, by: width) {
        for j in 0..<half {
          var (c, s) = (1.0, 0.0)
          if let base {
            let angle = Double(position) * Double.pow(base, -2 * Double(j) / Double(width))
            (c, s) = (Double.cos(angle), Double.sin(angle))
          } else if (0..<rows).contains(position) {
            (c, s) = (angles[position * width + j], angles[position * width + half + j])
          } else {
            // One position before the first, or behind the table: its angle is the first one's, as often.
            let unit = rows > 1 ? Double.atan2(y: angles[width + half + j], x: angles[width + j]) : 0
            (c, s) = (Double.cos(Double(position) * unit), Double.sin(Double(position) * unit))
          }
          if inverse { s = -s }
          let (a, b) =
            pairs ? (n * columns + head + 2 * j, n * columns + head + 2 * j + 1) : (n * columns + head + j, n * columns + head + j + half)
          (y[a], y[b]) = (values[a] * c - values[b] * s, values[a] * s + values[b] * c)
        }
      }
    }
    return y
  }

  // MARK: Attention

  struct HostAttention {
    var output: [Double]
    var logSumExp: [Double]
    var gradients: (dq: [Double], dk: [Double], dv: [Double])?
  }

  /// Attention with a mistake, and its gradients where dy is given.
  func mistakenAttention(
    _ q: Tensor<RoundingBackend>, _ k: Tensor<RoundingBackend>, _ v: Tensor<RoundingBackend>, dy: Tensor<RoundingBackend>? = nil,
    _ plan: SequencePlan<RoundingBackend>, _ form: AttentionForm
  ) -> HostAttention? {
    guard case .attention(let mistake)? = mutation, plan.keyRows == nil, let qs = try? exact.download(inner(q)),
      let ks = try? exact.download(inner(k)), let vs = try? exact.download(inner(v))
    else { return nil }
    let dys = dy.flatMap { try? exact.download(inner($0)) }
    let (h, g, d) = (form.heads, form.keyValueHeads, form.headWidth)
    let (wide, narrow) = (h * d, g * d)
    let scale = form.scale * mistake.scale
    var result = HostAttention(output: [Double](repeating: 0, count: qs.count), logSumExp: [Double](repeating: 0, count: q.rowCount * h))
    var (dq, dk, dv) = (
      [Double](repeating: 0, count: qs.count), [Double](repeating: 0, count: ks.count), [Double](repeating: 0, count: vs.count)
    )
    for sequence in 0..<plan.sequences {
      let rows = plan.queries(sequence)
      for head in 0..<h {
        let own = head / (h / g)
        let (kg, vg) = (mistake.tilesKeys ? head % g : own, mistake.tilesValues ? head % g : own)
        let (dkg, dvg) = mistake.tilesGradients ? (head % g, head % g) : (kg, vg)
        for i in rows {
          var visible = rows.filter { j in
            if mistake.isUnmasked { return true }
            guard j <= i + mistake.ahead else { return false }
            if let window = form.window, !mistake.ignoresWindow { return i - j < window + mistake.window }
            return true
          }
          if visible.isEmpty { visible = [i] }  // the first token has nobody else
          var scores: [(score: Double, slope: Double)] = []
          for j in visible {
            var z = 0.0
            for c in 0..<d { z += qs[i * wide + head * d + c] * ks[j * narrow + kg * d + c] }
            z *= scale
            if let cap = form.softcap, !mistake.ignoresSoftcap {
              let t = Double.tanh(z / cap)
              scores.append((cap * t, 1 - t * t))
            } else {
              scores.append((z, 1))
            }
          }
          let largest = scores.map(\.score).max() ?? 0
          let sum = scores.reduce(0) { $0 + Double.exp($1.score - largest) }
          let p = scores.map { Double.exp($0.score - largest) / sum }
          result.logSumExp[i * h + head] = largest + Double.log(sum)
          for (n, j) in visible.enumerated() {
            for c in 0..<d { result.output[i * wide + head * d + c] += p[n] * vs[j * narrow + vg * d + c] }
          }
          guard let dys else { continue }
          var (dp, rowSum) = ([Double](repeating: 0, count: visible.count), 0.0)
          for (n, j) in visible.enumerated() {
            for c in 0..<d {
              dp[n] += dys[i * wide + head * d + c] * vs[j * narrow + vg * d + c]
              dv[j * narrow + dvg * d + c] += p[n] * dys[i * wide + head * d + c]
            }
            rowSum += p[n] * dp[n]
          }
          for (n, j) in visible.enumerated() {
            let ds = p[n] * (dp[n] - (mistake.omitsRowSum ? 0 : rowSum)) * scores[n].slope * (mistake.omitsScaleInBackward ? 1 : scale)
            for c in 0..<d {
              dq[i * wide + head * d + c] += ds * ks[j * narrow + kg * d + c]
              dk[j * narrow + dkg * d + c] += ds * qs[i * wide + head * d + c]
            }
          }
        }
      }
    }
    if dys != nil { result.gradients = (dq, dk, dv) }
    return result
  }

  // MARK: Norms

  /// A norm with a mistake: y and ρ.
  func mistakenNorm(_ x: Tensor<RoundingBackend>, _ weight: Tensor<RoundingBackend>, offset: Double, epsilon: Double) -> [Double]? {
    guard let mutation, let xs = try? exact.download(inner(x)), let w = try? exact.download(inner(weight)) else { return nil }
    var (offset, epsilon, isCentered, hasGain, isOutside) = (offset, epsilon, false, true, false)
    switch mutation {
    case .normOffset: offset = offset == 0 ? 1 : 0
    case .normEpsilon(let other): epsilon = other
    case .normEpsilonOutside: isOutside = true
    case .normCentered: isCentered = true
    case .normGainMissing: hasGain = false
    default: return nil
    }
    let c = x.columnCount
    var y = xs
    for n in 0..<x.rowCount {
      let row = xs[n * c..<(n + 1) * c]
      let mean = isCentered ? row.reduce(0, +) / Double(c) : 0
      let square = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(c)
      let rho = isOutside ? 1 / (square.squareRoot() + epsilon) : 1 / (square + epsilon).squareRoot()
      for j in 0..<c { y[n * c + j] = rho * (xs[n * c + j] - mean) * (hasGain ? offset + w[j] : 1) }
    }
    return y
  }

  // MARK: Gated units

  static func activation(_ mistake: GateMistake, _ a: Double) -> Double? {
    switch mistake {
    case .geluTanh:
      let z = 0.7978845608028654 * (a + 0.044715 * a * a * a)  // √(2/π) (a + 0.044715 a³)
      return 0.5 * a * (1 + Double.tanh(z))
    case .geluExact: return 0.5 * a * (1 + Double.erf(a / 2.0.squareRoot()))
    case .geluQuick: return a / (1 + Double.exp(-1.702 * a))
    case .silu: return a / (1 + Double.exp(-a))
    case .relu: return max(0, a)
    case .sigmoid: return 1 / (1 + Double.exp(-a))
    case .identity: return a
    default: return nil
    }
  }

  func mistakenGate(_ activation: Activation, _ a: Tensor<RoundingBackend>, _ c: Tensor<RoundingBackend>) -> [Double]? {
    guard case .activation(let mistake)? = mutation, let xs = try? exact.download(inner(a)), let ys = try? exact.download(inner(c)) else {
      return nil
    }
    if mistake == .exchanged { return try? exact.download(exact.gated(activation, inner(c), inner(a))) }
    guard Self.activation(mistake, 0) != nil else { return nil }
    return xs.indices.map { (Self.activation(mistake, xs[$0]) ?? 0) * ys[$0] }
  }

  /// da with a mistaken slope; dc is right.
  func mistakenGateGradient(
    _ activation: Activation, _ dh: Tensor<RoundingBackend>, _ a: Tensor<RoundingBackend>, _ c: Tensor<RoundingBackend>
  )
    -> [Double]?
  {
    guard case .activation(let mistake)? = mutation, let d = try? exact.download(inner(dh)), let xs = try? exact.download(inner(a)),
      let ys = try? exact.download(inner(c))
    else { return nil }
    func slope(_ x: Double) -> Double? {
      switch mistake {
      case .slopeIsSigmoid: 1 / (1 + Double.exp(-x))
      case .slopeIsActivation: Self.activation(activation == .silu ? .silu : .geluTanh, x)
      case .slopeIsOne: 1
      case .slopeOfRelu: x > 0 ? 1 : 0
      case .slopeOfSilu: Self.slope(.silu, x)
      case .slopeOfGeluTanh: Self.slope(.geluTanh, x)
      case .slopeOfGeluExact: Self.slope(.geluExact, x)
      default: nil
      }
    }
    if mistake == .slopeWithoutUp {
      let own: GateMistake = activation == .silu ? .silu : .geluTanh
      return xs.indices.map { d[$0] * Self.slope(own, xs[$0]) }
    }
    guard slope(0) != nil else { return nil }
    return xs.indices.map { d[$0] * ys[$0] * (slope(xs[$0]) ?? 0) }
  }

  /// dc with a mistake; da is right.
  func mistakenUpGradient(_ dh: Tensor<RoundingBackend>, _ a: Tensor<RoundingBackend>) -> [Double]? {
    guard case .activation(let mistake)? = mutation, mistake == .upWithoutActivation || mistake == .upWithGate,
      let d = try? exact.download(inner(dh)), let xs = try? exact.download(inner(a))
    else { return nil }
    return mistake == .upWithoutActivation ? d : zip(d, xs).map(*)
  }

  /// act′ by a difference of the fourth order, good to about 1e-13.
  private static func slope(_ kind: GateMistake, _ x: Double) -> Double {
    func f(_ x: Double) -> Double { self.activation(kind, x) ?? 0 }
    let h = 1e-3
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)
  }

  // MARK: Routing

  /// Weights in expert order that a mistaken router would give; p (N,E).
  func mistakenWeights(_ p: Tensor<RoundingBackend>, _ routing: Routing<Exact>) -> [Double]? {
    guard let mutation, let all = try? exact.download(inner(p)), let tokens = try? exact.download(routing.tokenOfRow),
      let slots = try? exact.download(routing.slotOfRow), let choice = try? exact.download(routing.choice),
      let right = try? exact.download(routing.weights)
    else { return nil }
    let (e, s) = (routing.experts, routing.slots)
    func probability(_ row: Int) -> Double { all[Int(tokens[row]) * e + Int(choice[Int(slots[row])])] }
    switch mutation {
    case .weightsNotNormalized:
      return right.indices.map { row in
        if case .topK = routing.policy { return probability(row) }
        let n = Int(tokens[row])  // renormalized where the policy does not
        let chosen = choice[n * s..<(n + 1) * s].filter { $0 >= 0 }
        return probability(row) / chosen.reduce(0) { $0 + all[n * e + Int($1)] }
      }
    case .weightsUniform:
      return right.indices.map { row in
        let n = Int(tokens[row])
        return 1 / Double(choice[n * s..<(n + 1) * s].count { $0 >= 0 })
      }
    case .weightsMissing: return right.map { _ in 1 }
    case .weightsOfChosenLogitsSquared:
      return right.indices.map { row in
        let n = Int(tokens[row])
        let chosen = choice[n * s..<(n + 1) * s].filter { $0 >= 0 }.map { all[n * e + Int($0)] }
        let largest = chosen.max() ?? 0  // a softmax over probabilities that are softmaxed already
        return Double.exp(probability(row) - largest) / chosen.reduce(0) { $0 + Double.exp($1 - largest) }
      }
    case .weightsReversed:
      var rowOfSlot: [Int: Int] = [:]
      for row in right.indices { rowOfSlot[Int(slots[row])] = row }
      return right.indices.map { row in
        let (n, k) = (Int(slots[row]) / s, Int(slots[row]) % s)
        let used = choice[n * s..<(n + 1) * s].count { $0 >= 0 }
        return rowOfSlot[n * s + (used - 1 - k)].map { right[$0] } ?? right[row]
      }
    default: return nil
    }
  }

  /// dz as if every weight were p: dp_j = dw_j on the chosen, dz = p ⊙ (dp − ⟨dp, p⟩); p (N,E).
  func fullSoftmaxGradient(_ dw: Tensor<RoundingBackend>, _ p: Tensor<RoundingBackend>, _ routing: Routing<RoundingBackend>) -> [Double]? {
    guard let all = try? exact.download(inner(p)), let d = try? exact.download(inner(dw)),
      let slots = try? exact.download(inner(routing.slotOfRow)), let choice = try? exact.download(inner(routing.choice))
    else { return nil }
    let e = routing.experts
    var dp = [Double](repeating: 0, count: all.count)
    for row in d.indices {
      let n = Int(slots[row]) / routing.slots
      // Where weights are renormalized, by a sum that counts as a constant.
      var sum = 1.0
      if case .topK = routing.policy {
        sum = choice[n * routing.slots..<(n + 1) * routing.slots].filter { $0 >= 0 }.reduce(0) { $0 + all[n * e + Int($1)] }
      }
      dp[n * e + Int(choice[Int(slots[row])])] = d[row] / sum
    }
    return all.indices.map { i in
      let row = i / e * e..<i / e * e + e
      return all[i] * (dp[i] - row.reduce(0) { $0 + dp[$1] * all[$1] })
    }
  }
}
