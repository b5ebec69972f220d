import Tensors
import Testing

@testable import CPUBackend

/// A matrix on the host, for the plain loops that operations are tested against.
struct Host: Equatable {
  var rows: Int
  var columns: Int
  var values: [Double]

  init(_ rows: Int, _ columns: Int, _ value: (Int, Int) -> Double = { _, _ in 0 }) {
    (self.rows, self.columns) = (rows, columns)
    values = []
    for i in 0..<rows { for j in 0..<columns { values.append(value(i, j)) } }
  }

  subscript(i: Int, j: Int) -> Double {
    get { values[i * columns + j] }
    set { values[i * columns + j] = newValue }
  }

  var T: Host { Host(columns, rows) { self[$1, $0] } }
  static func * (a: Host, b: Host) -> Host {
    Host(a.rows, b.columns) { i, j in
      var sum = 0.0
      for k in 0..<a.columns { sum += a[i, k] * b[k, j] }
      return sum
    }
  }
  func rows(_ range: Range<Int>) -> Host { Host(range.count, columns) { self[range.lowerBound + $0, $1] } }
  func columns(_ range: Range<Int>) -> Host { Host(rows, range.count) { self[$0, range.lowerBound + $1] } }
}

/// One backend with poisoned memory, and how near a result must come: √(terms) roundings, with a margin.
struct Bench<B: CPUBackend> {
  let b: B
  let tolerance: Double

  /// Uploads as a view into a larger tensor of NaN when `strided`, so that reading beyond the view shows.
  func up(_ host: Host, strided: Bool = true) -> Tensor<B> {
    if !strided { return b.upload(host.values.map { B.Scalar($0) }, Shape(host.rows, host.columns)) }
    let around = Host(host.rows + 2, host.columns + 5) { i, j in
      i >= 1 && i <= host.rows && j >= 3 && j < host.columns + 3 ? host[i - 1, j - 3] : .nan
    }
    let tensor = b.upload(around.values.map { B.Scalar($0) }, Shape(around.rows, around.columns))
    return tensor.rows(1..<host.rows + 1).columns(3..<host.columns + 3)
  }

  /// Uploads as a vector.
  func vector(_ host: Host) -> Tensor<B> { b.upload(host.values.map { B.Scalar($0) }, Shape(host.columns)) }

  func random(_ rows: Int, _ columns: Int, _ seed: UInt64) -> Host {
    let device = CPUFloat(threads: 1)
    let values = (try? device.download(device.random(Shape(rows, columns), .normal(deviation: 1), RandomKey(seed: seed)))) ?? []
    return Host(rows, columns) { Double(values[$0 * columns + $1]) }
  }

  func expect(_ found: Tensor<B>, _ expected: Host, _ name: String) throws {
    let values = try b.download(found)
    guard found.rowCount == expected.rows, found.columnCount == expected.columns else {
      Issue.record("\(name): \(found.shape), expected (\(expected.rows),\(expected.columns))")
      return
    }
    let scale = max(1, expected.values.map { abs($0) }.max() ?? 0)
    for (i, value) in values.enumerated() {
      let error = abs(Double(value) - expected.values[i]) / scale
      guard error <= tolerance else {
        Issue.record("\(name) (\(expected.rows),\(expected.columns)) element \(i): \(value), expected \(expected.values[i])")
        return
      }
    }
  }
}

func silu(_ x: Double) -> Double { x / (1 + CLibrary.exp(-x)) }

extension Bench {
  func elementwise(_ n: Int, _ c: Int) throws {
    let (x, y, w, wn) = (random(n, c, 1), random(n, c, 2), random(1, c, 3), random(1, n, 4))
    for strided in [false, true] {
      var z = up(y, strided: strided)
      b.add(0.5, up(x), into: &z)
      try expect(z, Host(n, c) { y[$0, $1] + 0.5 * x[$0, $1] }, "add")
      z = up(y, strided: strided)
      b.scale(-1.5, &z)
      try expect(z, Host(n, c) { -1.5 * y[$0, $1] }, "scale")
      z = up(Host(n, c) { _, _ in .nan }, strided: strided)
      b.scale(0, &z)
      try expect(z, Host(n, c), "scale 0")
      z = up(y, strided: strided)
      b.addBias(vector(w), into: &z)
      try expect(z, Host(n, c) { y[$0, $1] + w[0, $1] }, "addBias")
      z = up(y, strided: strided)
      b.scaleRows(vector(wn), &z)
      try expect(z, Host(n, c) { wn[0, $0] * y[$0, $1] }, "scaleRows")
      try expect(b.copy(up(x, strided: strided)), x, "copy")
      try expect(b.sum(up(x, strided: strided)), Host(1, 1) { _, _ in x.values.reduce(0, +) }, "sum")
      let products = Host(n, c) { x[$0, $1] * y[$0, $1] }
      try expect(b.dot(up(x), up(y, strided: strided)), Host(1, 1) { _, _ in products.values.reduce(0, +) }, "dot")
      try expect(b.rowDots(up(x), up(y, strided: strided)), (products * Host(c, 1) { _, _ in 1 }).T, "rowDots")
      var sums = vector(w)
      b.addColumnSums(up(x, strided: strided), weights: vector(wn), into: &sums)
      let weighted = wn * x
      try expect(sums, Host(1, c) { w[0, $1] + weighted[0, $1] }, "addColumnSums")
      let (a, g) = (up(x, strided: strided), up(y, strided: strided))
      try expect(b.swiGLU(a, g), Host(n, c) { silu(x[$0, $1]) * y[$0, $1] }, "swiGLU")
      let dh = random(n, c, 5)
      let gradients = b.swiGLUBackward(up(dh), a, g)
      try expect(gradients.dc, Host(n, c) { dh[$0, $1] * silu(x[$0, $1]) }, "swiGLUBackward dc")
      let da = Host(n, c) { i, j in
        let sigma = 1 / (1 + CLibrary.exp(-x[i, j]))
        return dh[i, j] * y[i, j] * sigma * (1 + x[i, j] * (1 - sigma))
      }
      try expect(gradients.da, da, "swiGLUBackward da")
    }
    if n > 2, c > 2 {
      var z = up(y, strided: false)
      b.copy(up(x.rows(0..<n - 2).columns(0..<c - 2)), into: &z, rows: 1..<n - 1, columns: 2..<c)
      try expect(z, Host(n, c) { $0 >= 1 && $0 < n - 1 && $1 >= 2 ? x[$0 - 1, $1 - 2] : y[$0, $1] }, "copy into")
    }
  }

  func norms(_ n: Int, _ c: Int) throws {
    let (x, w, dy, start) = (random(n, c, 1), random(1, c, 2), random(n, c, 3), random(n, c, 4))
    let (y, s) = b.rmsNorm(up(x), vector(w), epsilon: 1e-3)
    func inverse(_ i: Int) -> Double {
      var sum = 0.0
      for j in 0..<c { sum += x[i, j] * x[i, j] }
      return 1 / (sum / Double(c) + 1e-3).squareRoot()
    }
    let inverses = Host(1, n) { inverse($1) }
    try expect(s, inverses, "inverseRMS")
    try expect(y, Host(n, c) { x[$0, $1] * inverses[0, $0] * w[0, $1] }, "rmsNorm")
    var dx = up(start)
    b.rmsNormBackward(up(dy), up(x), vector(w), s, into: &dx)
    let dots = Host(n, 1) { i, _ in (0..<c).reduce(0.0) { $0 + dy[i, $1] * w[0, $1] * x[i, $1] } }
    let expected = Host(n, c) { i, j in
      let s = inverses[0, i]
      return start[i, j] + s * dy[i, j] * w[0, j] - x[i, j] * s * s * s * dots[i, 0] / Double(c)
    }
    try expect(dx, expected, "rmsNormBackward")
    var dw = vector(w)
    b.rmsNormWeightGradient(up(dy), up(x), s, into: &dw)
    try expect(dw, Host(1, c) { _, j in (0..<n).reduce(w[0, j]) { $0 + inverses[0, $1] * dy[$1, j] * x[$1, j] } }, "rmsNormWeightGradient")

    let table = random(7, 10, 5)
    let heads = random(n, 30, 6)
    let position = (0..<n).map { ($0 * 3) % 7 }
    var q = up(heads)
    b.rope(&q, positions: b.upload(position.map { Int32($0) }), table: up(table), inverse: false)
    let turned = Host(n, 30) { i, j in
      let (head, k) = (j / 10 * 10, j % 10 % 5)
      let (cos, sin) = (table[position[i], k], table[position[i], 5 + k])
      return j % 10 < 5 ? heads[i, head + k] * cos - heads[i, head + 5 + k] * sin : heads[i, head + 5 + k] * cos + heads[i, head + k] * sin
    }
    try expect(q, turned, "rope")
  }

  func products(_ m: Int, _ n: Int, _ k: Int) throws {
    let (a, y, c) = (random(m, k, 1), random(k, n, 2), random(m + 3, n, 3))
    for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
      let left = ta ? up(a.T).T : up(a).operand
      let right = tb ? Operand<B>.frozen(b.freeze(up(y.T)), transposed: true) : up(y).operand
      var fresh = b.empty(Shape(m, n))
      b.gemm(0.5, left, right, 0, into: &fresh, rows: nil)
      let ay = a * y
      try expect(fresh, Host(m, n) { 0.5 * ay[$0, $1] }, "gemm \(ta) \(tb) k \(k)")
      for strided in [true, false] {
        var z = up(c, strided: strided)
        b.gemm(0.5, left, right, 2, into: &z, rows: 1..<m + 1)
        let expected = Host(m + 3, n) { i, j in i >= 1 && i <= m ? 0.5 * ay[i - 1, j] + 2 * c[i, j] : c[i, j] }
        try expect(z, expected, "gemm into rows \(ta) \(tb) k \(k)")
      }
    }
  }

  func attention(_ offsets: [Int], heads h: Int, groups g: Int, width d: Int, window: Int? = nil) throws {
    let n = offsets.last ?? 0
    let (q, k, v, dy) = (random(n, h * d, 1), random(n, g * d, 2), random(n, g * d, 3), random(n, h * d, 4))
    var (o, lse, dq, dk, dv) = (Host(n, h * d), Host(n, h), Host(n, h * d), Host(n, g * d), Host(n, g * d))
    let form = AttentionForm(heads: h, keyValueHeads: g, headWidth: d, scale: 0.3, offsets: offsets, window: window)
    for s in 0..<offsets.count - 1 {
      for head in 0..<h {
        let (range, kv) = (offsets[s]..<offsets[s + 1], head / (h / g) * d)
        for i in range {
          let keys = max(offsets[s], i + 1 - (window ?? n))...i
          let scores = keys.map { j in 0.3 * (0..<d).reduce(0.0) { $0 + q[i, head * d + $1] * k[j, kv + $1] } }
          let sum = scores.reduce(0.0) { $0 + CLibrary.exp($1) }
          lse[i, head] = CLibrary.log(sum)
          let p = scores.map { CLibrary.exp($0) / sum }
          let dp = keys.map { j in (0..<d).reduce(0.0) { $0 + dy[i, head * d + $1] * v[j, kv + $1] } }
          let delta = zip(p, dp).reduce(0.0) { $0 + $1.0 * $1.1 }
          for (t, j) in keys.enumerated() {
            let ds = p[t] * (dp[t] - delta) * 0.3
            for c in 0..<d {
              o[i, head * d + c] += p[t] * v[j, kv + c]
              dv[j, kv + c] += p[t] * dy[i, head * d + c]
              dq[i, head * d + c] += ds * k[j, kv + c]
              dk[j, kv + c] += ds * q[i, head * d + c]
            }
          }
        }
      }
    }
    let (output, logs) = b.attention(up(q), up(k), up(v), form)
    try expect(output, o, "attention")
    try expect(logs, lse, "logSumExp")
    let gradients = b.attentionBackward(up(dy), up(q), up(k), up(v), logSumExp: logs, form)
    try expect(gradients.dq, dq, "dq")
    try expect(gradients.dk, dk, "dk")
    try expect(gradients.dv, dv, "dv")
  }

  func tables(_ n: Int, _ c: Int) throws {
    let (table, dy) = (random(11, c, 1), random(n, c, 2))
    let ids = (0..<n).map { ($0 * $0) % 11 }
    let indices = b.upload(ids.map { Int32($0) })
    try expect(b.embedding(indices, up(table).operand), Host(n, c) { table[ids[$0], $1] }, "embedding")
    try expect(b.gather(up(table), rows: indices), Host(n, c) { table[ids[$0], $1] }, "gather")
    var gradient = up(table)
    b.addEmbeddingGradient(up(dy), indices, into: &gradient)
    var expected = table
    for i in 0..<n { for j in 0..<c { expected[ids[i], j] += dy[i, j] } }
    try expect(gradient, expected, "addEmbeddingGradient")
    let spread = random(2 * n + 1, c, 3)
    var y = up(spread)
    b.addScattered(up(dy), rows: b.upload((0..<n).map { Int32(2 * (n - 1 - $0)) }), into: &y)
    let scattered = Host(2 * n + 1, c) { $0 % 2 == 0 && $0 / 2 < n ? spread[$0, $1] + dy[n - 1 - $0 / 2, $1] : spread[$0, $1] }
    try expect(y, scattered, "addScattered")

    let logits = random(n, c, 4)
    let labels = (0..<n).map { ($0 * 5) % c }
    var x = up(Host(n, c) { 30 * logits[$0, $1] })
    let loss = b.crossEntropy(&x, labels: b.upload(labels.map { Int32($0) }), scale: 0.25)
    let sums = Host(1, n) { _, i in (0..<c).reduce(0.0) { $0 + CLibrary.exp(30 * logits[i, $1]) } }
    try expect(loss, Host(1, n) { _, i in CLibrary.log(sums[0, i]) - 30 * logits[i, labels[i]] }, "crossEntropy")
    let gradients = Host(n, c) { i, j in
      0.25 * (CLibrary.exp(30 * logits[i, j]) / sums[0, i] - (j == labels[i] ? 1 : 0))
    }
    try expect(x, gradients, "crossEntropy gradient")
  }

  func dropouts(_ n: Int, _ c: Int) throws {
    let x = random(n, c, 1)
    let (samples, positions) = ((0..<n).map { Int32($0 % 3) }, (0..<n).map { Int32($0 * 7) })
    let rows = RowIdentity<B>(samples: b.upload(samples), positions: b.upload(positions), step: 9)
    let key = RandomKey(seed: 3)
    func kept(_ token: Int, _ j: Int, _ key: RandomKey) -> Bool {
      let counter = SIMD4<UInt32>(9, UInt32(samples[token]), UInt32(positions[token]), UInt32(j / 4))
      return Double(Philox.numbers(counter: counter, key: key)[j % 4]) >= 0.3 * 0x1p32
    }
    try expect(b.dropout(up(x), 0.3, key, rows), Host(n, c) { kept($0, $1, key) ? x[$0, $1] / 0.7 : 0 }, "dropout")
    try expect(b.dropout(up(x), 0, key, rows), x, "dropout 0")

    let p = random(n, 5, 2)
    let routing = b.route(b.softmax(up(p)), choice: b.topK(up(p), 2), 2)
    let (token, choice) = try (b.download(routing.tokenOfRow), b.download(routing.choiceOfRow))
    let expert = try b.download(routing.choice)
    let keys = (0..<5).map { RandomKey(seed: UInt64($0)) }
    let wide = random(2 * n, c, 4)
    let expected = Host(2 * n, c) { m, j in
      kept(Int(token[m]), j, keys[Int(expert[Int(choice[m])])]) ? wide[m, j] / 0.7 : 0
    }
    try expect(b.dropout(up(wide), 0.3, keys, rows, routing), expected, "dropout by expert")
  }

  func routing(_ n: Int, experts e: Int, chosen k: Int, all: Bool) throws {
    let logits = all ? Host(n, e) { _, j in Double(-j) } : random(n, e, 1)
    let p = b.softmax(up(logits))
    let sums = Host(n, 1) { i, _ in (0..<e).reduce(0.0) { $0 + CLibrary.exp(logits[i, $1]) } }
    let probability = Host(n, e) { CLibrary.exp(logits[$0, $1]) / sums[$0, 0] }
    try expect(p, probability, "softmax")
    let chosen = try b.download(b.topK(p, k)).map { Int($0) }
    for i in 0..<n {
      let order = (0..<e).sorted { (logits[i, $0], -$0) > (logits[i, $1], -$1) }
      #expect(Array(chosen[i * k..<(i + 1) * k]) == Array(order.prefix(k)))
    }
    let plan = b.route(p, choice: b.topK(p, k), k)
    let m = n * k
    let order = (0..<m).sorted { (chosen[$0], $0) < (chosen[$1], $1) }
    #expect(try b.download(plan.choiceOfRow).map { Int($0) } == order)
    #expect(try b.download(plan.tokenOfRow).map { Int($0) } == order.map { $0 / k })
    #expect(try b.download(plan.rowOfChoice).map { Int($0) } == (0..<m).map { choice in order.firstIndex(of: choice) ?? -1 })
    let counts = Host(1, e) { _, j in Double(chosen.count { $0 == j }) }
    try expect(plan.counts, counts, "counts")
    let firsts = Host(1, e) { _, j in Double((0..<n).count { chosen[$0 * k] == j }) }
    try expect(plan.firstCounts, firsts, "firstCounts")
    let offsets = try b.download(plan.offsets).map { Int($0) }
    #expect(offsets == (0...e).map { j in chosen.count { $0 < j } })
    let w = Host(1, m) { _, row in
      let i = order[row] / k
      return probability[i, chosen[order[row]]] / chosen[i * k..<(i + 1) * k].reduce(0.0) { $0 + probability[i, $1] }
    }
    try expect(plan.weights, w, "weights")

    let (dw, balance) = (random(1, m, 2), random(1, e, 3))
    var dlogits = Host(n, e) { i, j in
      probability[i, j] * (balance[0, j] - (0..<e).reduce(0.0) { $0 + balance[0, $1] * probability[i, $1] })
    }
    for row in 0..<m {
      let i = order[row] / k
      let mean = (0..<m).filter { order[$0] / k == i }.reduce(0.0) { $0 + w[0, $1] * dw[0, $1] }
      dlogits[i, chosen[order[row]]] += w[0, row] * (dw[0, row] - mean)
    }
    try expect(b.routerBackward(vector(dw), p, plan, balance: vector(balance)), dlogits, "routerBackward")

    let (r, f) = (3, 37)
    let (x, y, blocks, thin) = (random(n, f, 4), random(m, f, 5), random(n, e * r, 6), random(m, r, 7))
    let expertOfRow = order.map { chosen[$0] }
    try expect(b.dispatch(up(x), plan), Host(m, f) { x[order[$0] / k, $1] }, "dispatch")
    let selection = Host(n, m) { i, row in order[row] / k == i ? 1 : 0 }
    let weighted = Host(n, m) { selection[$0, $1] * w[0, $1] }
    try expect(b.combine(up(y), weights: nil, plan), selection * y, "combine")
    try expect(b.combine(up(y), weights: plan.weights, plan), weighted * y, "combine weighted")
    try expect(b.dispatchBlocks(up(blocks), plan), Host(m, r) { blocks[order[$0] / k, expertOfRow[$0] * r + $1] }, "dispatchBlocks")
    let inBlocks = Host(m, e * r) { row, j in j / r == expertOfRow[row] ? thin[row, j % r] : 0 }
    try expect(b.combineBlocks(up(thin), weights: nil, plan), selection * inBlocks, "combineBlocks")
    try expect(b.combineBlocks(up(thin), weights: plan.weights, plan), weighted * inBlocks, "combineBlocks weighted")

    // Stacks of E matrices (f,r) side by side and (r,f) below each other.
    let (side, below) = (random(f, e * r, 8), random(e * r, f, 9))
    func grouped(_ a: Host, _ matrix: (Int) -> Host) -> Host {
      let products = (0..<e).map { a * matrix($0) }
      return Host(m, products[0].columns) { products[expertOfRow[$0]][$0, $1] }
    }
    for (transposed, axis) in [(false, ExpertStack<B>.Axis.rows), (true, .rows), (false, .columns), (true, .columns)] {
      let stack = axis == .rows ? below : side
      let expected = grouped(axis == .rows ? (transposed ? y : thin) : (transposed ? thin : y)) { j in
        let matrix = axis == .rows ? stack.rows(j * r..<(j + 1) * r) : stack.columns(j * r..<(j + 1) * r)
        return transposed ? matrix.T : matrix
      }
      let a = up(expected.columns == r ? y : thin)
      var c = b.empty(Shape(m, expected.columns))
      b.groupedGemm(2, a, ExpertStack(up(stack), along: axis, isTransposed: transposed), 0, into: &c, plan)
      b.groupedGemm(1, a, ExpertStack(up(stack), along: axis, isTransposed: transposed), 0.5, into: &c, plan)
      try expect(c, Host(m, expected.columns) { 2 * expected[$0, $1] }, "groupedGemm \(axis) \(transposed)")
    }
    var (g, h) = (up(side), up(below))
    b.groupedOuter(2, up(y), up(thin), into: &g, stackedAlong: .columns, plan)
    b.groupedOuter(2, up(thin), up(y), into: &h, stackedAlong: .rows, plan)
    func outer(_ i: Int, _ j: Int, _ expert: Int) -> Double {
      (0..<m).reduce(0.0) { expertOfRow[$1] == expert ? $0 + 2 * y[$1, i] * thin[$1, j] : $0 }
    }
    try expect(g, Host(f, e * r) { side[$0, $1] + outer($0, $1 % r, $1 / r) }, "groupedOuter columns")
    try expect(h, Host(e * r, f) { below[$0, $1] + outer($1, $0 % r, $0 / r) }, "groupedOuter rows")
  }

  func optimizer(_ n: Int, _ c: Int) throws {
    let (x, g, m, v) = (random(n, c, 1), random(n, c, 2), random(n, c, 3), random(n, c, 4))
    var (xs, ms, vs) = (up(x), up(m), up(Host(n, c) { v[$0, $1] * v[$0, $1] }))
    var settings = AdamWSettings(learningRate: 0.01, weightDecay: 0.1, step: 3)
    settings.epsilon = 1e-3
    let half = vector(Host(1, 1) { _, _ in 0.5 })
    b.adamW(&xs, gradient: up(g), factor: vector(Host(1, 1) { _, _ in .nan }), &ms, &vs, settings)
    try expect(xs, x, "adamW with a NaN factor")
    b.adamW(&xs, gradient: up(Host(n, c) { 2 * g[$0, $1] }), factor: half, &ms, &vs, settings)
    let m1 = Host(n, c) { m[$0, $1] + (g[$0, $1] - m[$0, $1]) * 0.1 }
    let v1 = Host(n, c) { 0.999 * v[$0, $1] * v[$0, $1] + 0.001 * g[$0, $1] * g[$0, $1] }
    try expect(ms, m1, "adamW m")
    try expect(vs, v1, "adamW v")
    let (c1, c2) = (1 - 0.9 * 0.9 * 0.9, (1 - 0.999 * 0.999 * 0.999).squareRoot())
    let x1 = Host(n, c) { x[$0, $1] * (1 - 0.001) - 0.01 / c1 * m1[$0, $1] / (v1[$0, $1].squareRoot() / c2 + 1e-3) }
    try expect(xs, x1, "adamW x")

    var (y, bs) = (up(x), up(m))
    b.sgd(&y, gradient: up(g), factor: half, momentum: &bs, SGDSettings(learningRate: 0.1, weightDecay: 0.2, momentum: 0.9))
    let b1 = Host(n, c) { 0.9 * m[$0, $1] + 0.5 * g[$0, $1] + 0.2 * x[$0, $1] }
    try expect(bs, b1, "sgd momentum")
    try expect(y, Host(n, c) { x[$0, $1] - 0.1 * b1[$0, $1] }, "sgd x")
  }

  func everything() throws {
    for (n, c) in [(0, 5), (1, 1), (1, 33), (3, 0), (3, 7), (65, 16), (130, 173), (1, 40_001), (4000, 5)] {
      try elementwise(n, c)
      if n < 4000, c < 40_001 { try optimizer(n, c) }
    }
    for (n, c) in [(0, 5), (1, 1), (3, 7), (65, 16), (130, 173)] {
      try norms(n, c)
      try tables(n, c)
    }
    for (n, c) in [(0, 5), (1, 1), (3, 7), (9, 530), (40, 513)] { try dropouts(n, c) }
    for (m, n, k) in [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (5, 7, 3), (33, 17, 65), (130, 70, 90), (70, 131, 90)] {
      try products(m, n, k)
    }
    try attention([0, 3, 3, 4, 20], heads: 4, groups: 2, width: 5)
    try attention([0, 64, 193], heads: 3, groups: 1, width: 8)
    for window in [1, 7, 64, 65, 500] { try attention([0, 3, 200], heads: 2, groups: 1, width: 5, window: window) }
    try attention([0, 0], heads: 2, groups: 2, width: 8)
    try attention([0], heads: 2, groups: 2, width: 8)
    for (n, e, k) in [(0, 4, 2), (1, 1, 1), (5, 4, 4), (40, 5, 2), (150, 3, 1)] {
      try routing(n, experts: e, chosen: k, all: false)
      try routing(n, experts: e, chosen: k, all: true)
    }
  }
}

@Suite struct OperationTests {
  @Test(arguments: [1, 2, 3]) func `every operation equals its plain loop in double precision`(threads: Int) throws {
    try Bench(b: CPUDouble(threads: threads, isPoisoned: true), tolerance: 1e-13).everything()
  }

  @Test(arguments: [1, 2, 3]) func `every operation equals its plain loop in single precision`(threads: Int) throws {
    try Bench(b: CPUFloat(threads: threads, isPoisoned: true), tolerance: 2e-5).everything()
  }

  @Test func `float formats are decoded wherever they begin`() throws {
    for shift in 0..<3 {
      func bytes(_ count: Int, _ fill: (UnsafeMutableRawPointer) -> Void) -> UnsafeMutableRawBufferPointer {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count + 4, alignment: 16)
        if let base = buffer.baseAddress { fill(base + shift) }
        return buffer
      }
      let halves = bytes(2 << 16) { for i in 0..<1 << 16 { $0.storeBytes(of: UInt16(i), toByteOffset: 2 * i, as: UInt16.self) } }
      defer { halves.deallocate() }
      let raw = UnsafeRawBufferPointer(rebasing: halves[shift..<shift + 2 << 16])
      let (half, brain) = (CPUDouble(threads: 1), CPUFloat(threads: 1))
      let decoded = try half.download(half.upload(raw, .float16, Shape(256, 256)))
      let upper = try brain.download(brain.upload(raw, .bfloat16, Shape(256, 256)))
      for i in 0..<1 << 16 {
        let (exponent, fraction) = ((i >> 10) & 31, Double(i & 1023))
        let sign: Double = i >> 15 == 1 ? -1 : 1
        let power = Double(sign: .plus, exponent: max(exponent, 1) - 15, significand: 1)
        let expected = exponent == 31 ? (fraction == 0 ? Double.infinity : .nan) : power * (fraction / 1024 + (exponent > 0 ? 1 : 0))
        #expect(decoded[i] == sign * expected || (decoded[i].isNaN && expected.isNaN))
        #expect(upper[i].bitPattern == UInt32(i) << 16 || upper[i].isNaN)
      }
      let numbers: [Float] = [1.5, -2.25, 0x1p-130, .infinity]
      let singles = bytes(16) { for i in 0..<4 { $0.storeBytes(of: numbers[i], toByteOffset: 4 * i, as: Float.self) } }
      defer { singles.deallocate() }
      let frozen = half.freeze(UnsafeRawBufferPointer(rebasing: singles[shift..<shift + 16]), .float32, Shape(4))
      #expect(try half.download(half.vector(frozen)) == numbers.map { Double($0) })
      let doubles = bytes(32) { for i in 0..<4 { $0.storeBytes(of: Double(numbers[i]), toByteOffset: 8 * i, as: Double.self) } }
      defer { doubles.deallocate() }
      let narrowed = brain.upload(UnsafeRawBufferPointer(rebasing: doubles[shift..<shift + 32]), .float64, Shape(4))
      #expect(try brain.download(narrowed) == numbers)
    }
  }

  @Test func `a long sum over the rows of an encoded matrix keeps its digits, for few rows and for many`() throws {
    // A term added 65 536 times to one running float32 sum is lost by 6e-4; a head's gradient sums 49 152 terms.
    let (b, terms, width) = (CPUFloat(threads: 2), 1 << 16, 32)
    let ones = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * terms * width, alignment: 16)
    defer { ones.deallocate() }
    ones.initializeMemory(as: UInt16.self, repeating: 0x3F80)  // 1 in bfloat16
    let w = b.freeze(UnsafeRawBufferPointer(ones), .bfloat16, Shape(terms, width))
    for count in [1, 4, 8, 9] {
      let a = b.upload([Float](repeating: 0.1, count: count * terms), Shape(count, terms))
      var y = b.empty(Shape(count, width))
      b.gemm(1, a.operand, .frozen(w, transposed: false), 0, into: &y, rows: nil)
      let expected = Double(Float(0.1)) * Double(terms)
      for value in try b.download(y) { #expect(abs(Double(value) - expected) <= 5e-5 * expected, "\(count) rows") }
    }
  }

  @Test func `the clip factor is torch's, and NaN where norm or loss is not finite`() throws {
    let b = CPUDouble(threads: 1)
    func factor(_ squaredNorm: Double, _ loss: Double, _ maximum: Double) throws -> Double {
      try b.download(b.clipFactor(b.upload([squaredNorm], Shape(1)), loss: b.upload([loss], Shape(1)), maximum: maximum).factor)[0]
    }
    #expect(try factor(4, 1, 1) == 1 / (2 + 1e-6))
    #expect(try factor(4, 1, 3) == 1)
    #expect(try factor(4, 1, 0) == 1)
    #expect(try factor(.infinity, 1, 1).isNaN)
    #expect(try factor(4, .nan, 0).isNaN)
  }

  @Test func `ties go to the lower index and NaN comes last`() throws {
    let b = CPUFloat(threads: 1)
    let p = b.upload([1, 3, 3, .nan, .nan, .nan, -.infinity, .nan, 0, -.infinity, 7, .nan], Shape(3, 4))
    #expect(try b.download(b.topK(p, 3)) == [1, 2, 0, 0, 1, 2, 2, 0, 1])
  }

  @Test(arguments: [1, 2, 3]) func `the same run gives the same bits`(threads: Int) throws {
    func run() throws -> [[Float]] {
      let b = CPUFloat(threads: threads)
      let x = b.random(Shape(300, 192), .normal(deviation: 1), RandomKey(seed: 1))
      let w = b.random(Shape(192), .normal(deviation: 1), RandomKey(seed: 2))
      var y = b.zeros(Shape(300, 192))
      b.gemm(1, b.gemmSquare(x).operand, x.operand, 0, into: &y, rows: nil)
      let form = AttentionForm(heads: 6, keyValueHeads: 3, headWidth: 32, scale: 0.2, offsets: [0, 100, 300])
      let kv = x.columns(0..<96)
      let (o, l) = b.attention(x, kv, kv, form)
      let (dq, dk, dv) = b.attentionBackward(y, x, kv, kv, logSumExp: l, form)
      var sums = b.zeros(Shape(192))
      b.addColumnSums(x, weights: nil, into: &sums)
      let (normed, s) = b.rmsNorm(x, w, epsilon: 1e-5)
      b.rmsNormWeightGradient(y, x, s, into: &sums)
      return try [y, o, dq, dk, dv, sums, normed, b.dot(x, y)].map { try b.download($0) }
    }
    let first = try run()
    for _ in 0..<5 { #expect(try run() == first) }
  }

  @Test func `sums over rows do not depend on the number of threads`() throws {
    func run(_ threads: Int) throws -> [[Float]] {
      let b = CPUFloat(threads: threads)
      let x = b.random(Shape(700, 190), .normal(deviation: 1), RandomKey(seed: 1))
      var sums = b.zeros(Shape(190))
      b.addColumnSums(x, weights: nil, into: &sums)
      let s = b.rmsNorm(x, sums, epsilon: 1e-5).inverseRMS
      b.rmsNormWeightGradient(x, x, s, into: &sums)
      var table = b.zeros(Shape(9, 190))
      b.addEmbeddingGradient(x, b.upload((0..<700).map { Int32($0 % 9) }), into: &table)
      return try [sums, table, b.sum(x), b.dot(x, x), b.rowDots(x, x)].map { try b.download($0) }
    }
    let one = try run(1)
    #expect(try run(2) == one)
    #expect(try run(3) == one)
  }
}

extension CPUBackend {
  /// x xᵀ.
  func gemmSquare(_ x: Tensor<Self>) -> Tensor<Self> {
    var y = empty(Shape(x.rowCount, x.rowCount))
    gemm(1, x.operand, x.T, 0, into: &y, rows: nil)
    return y
  }
}
