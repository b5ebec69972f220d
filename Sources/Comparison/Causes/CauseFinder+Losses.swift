import Conformance
import Platform
import Tensors

// Causes of single numbers: which labels, which mean, which form of the balance loss; and of precision.
extension CauseFinder {
  /// A loss that is c times what it should be.
  func scalarLoss(_ c: Double) {
    let labels = labelCount
    let (tokens, columns) = (Double(model.layout.places.count), Double(model.batch.rows * model.batch.columns))
    let isBalance = target.name.hasSuffix("aux_loss")
    if isBalance {
      let mixture = model.layout.owners.first?.mixture
      let (e, layers) = (Double(mixture?.experts ?? 1), Double(model.decoder.blocks.count))
      let k = Double(mixture.map { $0.policy.slots(of: $0.experts) } ?? 1)
      for (factor, text) in [
        (e, "it has the factor E twice"), (1 / e, "it lacks the factor E, the number of experts"), (k, "it is K times as large"),
        (1 / k, "it is divided by K, the experts of a token"), (layers, "it is summed over the layers instead of their mean"),
        (1 / layers, "it is divided by the number of layers once more"),
      ] where factor != 1 { keep(ours.map { factor * $0 }, "balance-form", rank: 0, text) }
    } else {
      for (factor, text) in [
        (labels, "it is the sum over the labels instead of their mean"),
        (labels / tokens, "it is divided by all tokens instead of the labeled ones"),
        (
          labels / (columns - Double(model.batch.rows)),
          "it is divided by all columns but each row's first, padding included, instead of the labeled ones"
        ),
        (labels / columns, "it is divided by all columns, padding included, instead of the labeled ones"),
        (1 / Double.log(2), "it is in bits instead of nats"),
        (labels / Double(model.batch.rows), "it is the sum divided by the number of rows instead of the labels"),
      ] where factor != 1 { keep(ours.map { factor * $0 }, "loss-mean", rank: 0, text) }
    }
    // One number is always some multiple of another: only a simple one says anything.
    let isSimple = [c, 1 / c].contains { abs($0 - $0.rounded()) < 1e-5 && abs($0) < 1e4 }
    if isSimple { keep(ours.map { c * $0 }, "scale", rank: 5, "it is \(Self.spelled(c, comparison)) times what it should be") }
  }

  private var labelCount: Double { Double(model.batch.sequences.reduce(0) { $0 + $1.labels.count { $0 != nil } }) }

  /// Loss and balance loss from the candidate's logits and probabilities, in other ways.
  func losses() {
    guard ours.count == 1 else { return }
    if target.name.hasSuffix("aux_loss") { return balanceForms() }
    guard target.name == "loss", let z = try? comparison.localValues("lm_head.output", Trial()) else { return }
    var logits = z.found ?? z.ours
    if let cap = model.decoder.head.softcap { logits = logits.map { cap * Double.tanh($0 / cap) } }
    let vocabulary = logits.count / max(1, model.layout.places.count)
    let logSums = model.layout.places.indices.map { row in
      let z = logits[row * vocabulary..<(row + 1) * vocabulary]
      let largest = z.max() ?? 0
      return largest + Double.log(z.reduce(0) { $0 + Double.exp($1 - largest) })
    }
    // Row by row of the batch, the cross-entropy of each labeled token under a shift of the labels.
    func entropies(shift: Int) -> [[Double]] {
      var (rows, begin): ([[Double]], Int) = ([], 0)
      for number in model.packed.order {
        let sequence = model.batch.sequences[number]
        rows.append(
          sequence.ids.indices.compactMap { t in
            let from = t + shift - 1
            guard sequence.labels.indices.contains(from), let label = sequence.labels[from] else { return nil }
            return logSums[begin + t] - logits[(begin + t) * vocabulary + Int(label)]
          })
        begin += sequence.ids.count
      }
      return rows
    }
    func mean(_ x: [Double]) -> Double { x.reduce(0, +) / Double(max(1, x.count)) }
    for (shift, text) in [
      (0, "the labels are not shifted: each token is asked for itself"),
      (2, "the labels are shifted twice: each token is asked for the one after the next"),
      (-1, "the labels are shifted the other way"),
    ] where !keep([mean(entropies(shift: shift).flatMap { $0 })], "label-shift", rank: 0, text) {
      // With other labels a token of padding may be asked, whose logits nobody recorded; the gradient tells without it.
      if let left = try? gradientLeft(shift: shift, logits) {
        causes.append((Cause(name: "label-shift", text: "\(text), as the gradient of its logits shows", remaining: left), 0))
      }
    }
    keep(
      [mean(entropies(shift: 1).filter { !$0.isEmpty }.map(mean))], "loss-mean", rank: 1,
      "it is the mean of each row's mean instead of the mean over all labels")
  }

  /// What remains of the error of the logits' gradient with labels under a shift; nil where the candidate has none, or that does not explain it.
  ///
  /// (softmax(z) − onehot(label)) / n, with whatever n the candidate's own numbers show.
  private func gradientLeft(shift: Int, _ logits: [Double]) throws -> Double? {
    let name = "grad.lm_head.output"
    guard let (ours, found) = try comparison.localValues(name, Trial()), let found, ours.count == logits.count else { return nil }
    let (cap, vocabulary) = (model.decoder.head.softcap, logits.count / max(1, model.layout.places.count))
    var expected = [Double](repeating: 0, count: logits.count)
    var begin = 0
    for number in model.packed.order {
      let sequence = model.batch.sequences[number]
      for t in sequence.ids.indices where sequence.labels.indices.contains(t + shift - 1) {
        guard let label = sequence.labels[t + shift - 1] else { continue }
        let row = (begin + t) * vocabulary..<(begin + t + 1) * vocabulary
        let p = RoutingFlip.probabilities(Array(logits[row]))
        for (j, i) in row.enumerated() {
          let slope = cap.map { 1 - (logits[i] / $0) * (logits[i] / $0) } ?? 1
          expected[i] = (p[j] - (j == Int(label) ? 1 : 0)) * slope
        }
      }
      begin += sequence.ids.count
    }
    let square = expected.reduce(0) { $0 + $1 * $1 }
    let scale = zip(found, expected).reduce(0) { $0 + $1.0 * $1.1 } / max(1e-300, square)
    let difference = Self.norm(zip(found, expected).map { $0 - scale * $1 })
    let budget = comparison.records[name].map { comparison.judgement(name, $0).localBudget ?? 0 } ?? 0
    guard scale > 0, difference <= 2 * budget * Self.norm(found) else { return nil }
    return difference / Self.norm(found)
  }

  private func balanceForms() {
    guard let owner = model.layout.owners.first, let loss = model.decoder.adapters[owner.number].balanceLoss else { return }
    let (experts, policy) = (owner.mixture.experts, owner.mixture.policy)
    let slots = policy.slots(of: experts)
    var layers: [(p: [Double], choice: [Int32])] = []
    for gate in model.layout.gates(of: owner) {
      guard let logits = comparison.theirLogits(gate), let choice = comparison.rows.choices[gate + ".choice"] else { return }
      layers.append((OracleComparison<Exact>.softmax(logits, experts), choice))
    }
    guard let first = layers.first, !first.p.isEmpty else { return }
    let tokens = Double(first.p.count / experts)
    let (c, e) = (loss.coefficient, Double(experts))
    /// Means over the tokens of some layers: of rows of the counted slots, and of p.
    func shares(_ layers: [(p: [Double], choice: [Int32])], firstOnly: Bool) -> (f: [Double], p: [Double]) {
      var (f, p) = ([Double](repeating: 0, count: experts), [Double](repeating: 0, count: experts))
      let n = tokens * Double(layers.count)
      for layer in layers {
        for (i, x) in layer.p.enumerated() { p[i % experts] += x / n }
        for (i, x) in layer.choice.enumerated() where x >= 0 && (!firstOnly || i % slots == 0) { f[Int(x)] += 1 / n }
      }
      return (f, p)
    }
    func product(_ s: (f: [Double], p: [Double])) -> Double { zip(s.f, s.p).reduce(0) { $0 + $1.0 * $1.1 } }
    let pooled = shares(layers, firstOnly: false)
    let each = layers.map { product(shares([$0], firstOnly: false)) }
    let eachFirst = layers.map { product(shares([$0], firstOnly: true)) }
    let l = Double(layers.count)
    for (value, text) in [
      (c * e * eachFirst.reduce(0, +) / l, "it is the paper's form, layer by layer of the first choices"),
      (c * e * each.reduce(0, +) / l, "it is formed layer by layer instead of pooled"),
      (c * e * each.reduce(0, +), "it is formed layer by layer and summed instead of pooled"),
      (c * e * eachFirst.reduce(0, +), "it is the paper's form, summed over the layers"),
      (c * e * product(shares(layers, firstOnly: true)), "only the first choice of a token is counted"),
      (c * e * product(pooled), "it is pooled over the layers instead of layer by layer"),
      (c * e * pooled.p.reduce(0) { $0 + $1 * $1 }, "the probabilities alone count, not the choices"),
      (c * e * pooled.f.reduce(0) { $0 + $1 * $1 }, "the choices alone count, not the probabilities"),
      (product(pooled) * e, "its coefficient is missing"),
    ] { keep([value], "balance-form", rank: 1, text) }
  }

  /// Whether lower precision explains it.
  func rounding() {
    guard causes.isEmpty, ours.count > 4, target.phase != "optimizer",
      let rounded = try? comparison.localValues(target.name, Trial(precision: .bfloat16))
    else { return }
    let (difference, noise) = (zip(found, ours).map(-), zip(rounded.ours, ours).map(-))
    let (d, n) = (Self.norm(difference), Self.norm(noise))
    // Rounding spreads over all elements, and leaves numbers that the narrow type has.
    let largest = difference.map { abs($0) }.max() ?? 0
    var narrow = found
    Precision.bfloat16.round(&narrow)
    let isNarrow = 20 * zip(narrow, found).count { $0 == $1 } > found.count
    guard d > 0, d <= 3 * n, n <= 30 * d, largest * Double(ours.count).squareRoot() < 20 * d, isNarrow else { return }
    let text = "the error has the size that bfloat16 gives it, and many of its numbers are bfloat16's: a part of it may run in that"
    causes.append((Cause(name: "low-precision", text: text, remaining: nil), 9))  // what was rounded away does not come back
  }

  /// A factor in words: as a power, a root or a ratio of sizes of the model where it is one.
  static func spelled(_ c: Double, _ comparison: OracleComparison<Exact>) -> String {
    let configuration = comparison.model.decoder.configuration
    let (d, channels) = (Double(configuration.attention.headWidth), Double(configuration.channels))
    let mixture = comparison.model.layout.owners.first?.mixture
    var names: [(Double, String)] = [
      (d.squareRoot(), "√D"), (1 / d.squareRoot(), "1/√D"), (d, "D"), (1 / d, "1/D"), (channels.squareRoot(), "√C"),
      (1 / channels.squareRoot(), "1/√C"),
      (channels, "C"), (1 / channels, "1/C"), (2.0.squareRoot(), "√2"), (0.5.squareRoot(), "1/√2"),
    ]
    if let e = mixture.map({ Double($0.experts) }) { names += [(e, "E"), (1 / e, "1/E")] }
    let value = "\((c * 1e6).rounded() / 1e6)"
    guard let name = names.first(where: { abs($0.0 - abs(c)) < 1e-4 * abs(c) && abs($0.0 - $0.0.rounded()) > 1e-9 })?.1 else {
      return value
    }
    return "\(c < 0 ? "−" : "")\(name) = \(value)"
  }
}
