import Checkpoints
import Conformance
import Foundation
import Testing

/// What `compare --gen-test` writes says enough to compute the operation: done here by its equation, from the numbers of the case alone.
@Suite struct GeneratedCaseTests {
  /// A tensor of a trace that is made wrong, and how it is formed by the letters of its equation.
  struct Operation: Sendable, CustomTestStringConvertible {
    let tensor: String
    let form: @Sendable (GeneratedCase) -> [Double]
    var testDescription: String { tensor }

    init(_ tensor: String, _ form: @escaping @Sendable (GeneratedCase) -> [Double]) { (self.tensor, self.form) = (tensor, form) }
  }

  static let operations: [Operation] = [
    Operation("model.embed_tokens.output") { $0.embedding() },
    Operation("model.layers.1.input_layernorm.output") { $0.norm() },
    Operation("model.layers.0.self_attn.q_proj.output") { $0.linear() },
    Operation("model.layers.0.self_attn.k_proj.rotated.output") { $0.rotary("x", isBack: false) },
    Operation("model.layers.1.self_attn.o_proj.input") { $0.attention() },
    Operation("model.layers.0.residual.output") { zip($0["x"], $0["z"]).map(+) },
    Operation("model.layers.0.mlp.moe_gate.probabilities.output") { $0.softmax() },
    Operation("model.layers.0.mlp.moe_gate.weights.output") { $0.routerWeights() },
    Operation("model.layers.1.mlp.experts.1.hidden") { $0.gated() },
    Operation("model.layers.1.mlp.experts.2.gate_proj.output") { $0.expertLinear() },
    Operation("model.layers.0.mlp.down_proj.input") { $0.combine() },
    Operation("logits") { $0["z"] },
    Operation("loss") { $0.crossEntropy() },
    Operation("grad.lm_head.output") { $0.crossEntropyGradient() },
    Operation("grad.model.layers.1.residual.output") { $0.normGradient() },
    Operation("grad.model.layers.0.self_attn.v_proj.output") { $0.valueGradient() },
    Operation("grad.model.layers.0.self_attn.q_proj.output") { $0.rotary("dy", isBack: true) },
    Operation("grad.model.layers.1.mlp.experts.1.gate_proj.output") { $0.gatedGradient() },
    Operation("grad.mixlora.layers.1.self_attn.q_proj.lora_A.weight") { $0.branchGradient() },
    Operation("exp_avg_sq.mixlora.layers.1.self_attn.q_proj.lora_B.weight") { one in one["g"].map { (1 - one.number("beta2")) * $0 * $0 } },
    Operation("after.mixlora.layers.0.mlp.moe_gate.weight") { $0.adamW() },
  ]

  @Test(arguments: operations) func aRightOperationIsGreenAndTheCandidatesRed(_ operation: Operation) throws {
    try expectGreenAndRed(operation, isAlone: false)
  }

  /// A candidate that has nothing but the tensor: the oracle's own numbers are the inputs.
  @Test(arguments: operations.enumerated().filter { $0.offset % 8 == 1 }.map(\.element))
  func whatTheCandidateLacksIsTheOraclesOwn(_ operation: Operation) throws { try expectGreenAndRed(operation, isAlone: true) }

  private func expectGreenAndRed(_ operation: Operation, isAlone: Bool) throws {
    let scratch = try Scratch()
    let golden = try scratch.golden("left-padding").path
    let inputs = ["--model", golden + "/model", "--adapter", golden + "/adapter", "--batch", golden + "/batch.safetensors"]
    let (candidate, folder) = (scratch.url.path + "/candidate.safetensors", scratch.url.path + "/test")
    try write(try Self.trace.get(), wrong: operation.tensor, isAlone: isAlone, to: candidate)
    let result = try Program.run(["compare"] + inputs + [candidate, "--gen-test", folder, "--json", "--threads", "1"])
    #expect(result.code == 1 && result.error.isEmpty, "\(result.error)")
    let one = try GeneratedCase(folder + "/Tests/OperationTests/case")
    #expect(one.name == operation.tensor)
    let right = NamedTensors(one.name, operation.form(one), shape: one.expected.shape)
    let golds = NamedTensors(one.name, one.expected.values, shape: one.expected.shape)
    #expect(right.matches(golds, within: .relative(one.budget)), "\(one.equation)")
    #expect(!NamedTensors(one.name, one.found, shape: one.expected.shape).matches(golds, within: .relative(one.budget)))
  }

  @Test func whatNoOperationFormsIsSaidNotToBeWritten() throws {
    let scratch = try Scratch()
    let golden = try scratch.golden("left-padding").path
    let inputs = ["--model", golden + "/model", "--adapter", golden + "/adapter", "--batch", golden + "/batch.safetensors"]
    let (candidate, folder) = (scratch.url.path + "/candidate.safetensors", scratch.url.path + "/test")
    try write(try Self.trace.get(), wrong: nil, isAlone: false, to: candidate)
    let result = try Program.run(["compare"] + inputs + [candidate, "--gen-test", folder])
    #expect(result.code == 0 && result.error.hasPrefix("note: \(folder) was not written"), "\(result.error)")
    #expect(!FileManager.default.fileExists(atPath: folder))
  }

  /// A float32 trace with everything, made once.
  private static let trace = Result {
    let scratch = try Scratch()
    let golden = try scratch.golden("left-padding").path
    let file = scratch.url.path + "/trace.safetensors"
    let result = try Program.run(
      ["trace", "--model", golden + "/model", "--adapter", golden + "/adapter", "--batch", golden + "/batch.safetensors"]
        + ["--out", file, "--backward", "--activations", "--steps", "1"])
    #expect(result.code == 0, "\(result.error)")
    return try NamedTensors(contentsOf: file)
  }

  /// The trace with one tensor made wrong by a hundredth.
  private func write(_ trace: NamedTensors, wrong: String?, isAlone: Bool, to path: String) throws {
    let kept = trace.elements.filter { !isAlone || $0.name == wrong || $0.name == "logits" }
    try SafetensorsWriter.write(
      to: path, entries: kept.map { try TensorEntry(name: $0.name, elementType: .float32, shape: $0.shape) }
    ) { entry, emit in
      let values = trace[entry.name]?.values ?? []
      let most = values.lazy.map(abs).max() ?? 0
      try values.map { Float(entry.name == wrong && $0 != 0 ? $0 * 1.01 + 0.001 * most : $0) }.withUnsafeBytes { try emit($0) }
    }
  }
}

/// A case that was written, by the letters of its equation.
struct GeneratedCase {
  let name: String
  let equation: String
  let budget: Double
  let expected: NamedTensors.Element
  let found: [Double]
  private let attributes: JSON
  private var letters: [(letter: String, tensor: NamedTensors.Element)] = []

  init(_ folder: String) throws {
    let json = try JSON(parsing: String(contentsOfFile: folder + "/case.json", encoding: .utf8), file: folder)
    let inputs = try NamedTensors(contentsOf: folder + "/inputs.safetensors")
    expected = try #require(try NamedTensors(contentsOf: folder + "/expected.safetensors").elements.first)
    found = try #require(try NamedTensors(contentsOf: folder + "/found.safetensors").elements.first).values
    (name, equation) = (expected.name, json["equation"]?.stringValue ?? "")
    budget = try #require(json["outputs"]?[name]?["budget"]?.doubleValue)
    attributes = try #require(json["attributes"])
    for name in try #require(json["inputs"]?.arrayValue).compactMap(\.stringValue) {
      letters.append((try #require(json["meanings"]?[name]?.stringValue), try #require(inputs[name])))
    }
  }

  func number(_ name: String) -> Double { attributes[name]?.doubleValue ?? .nan }
  /// The tensors of a letter or name, in the order of the case.
  func all(_ letter: String) -> [NamedTensors.Element] { letters.filter { $0.letter == letter || $0.tensor.name == letter }.map(\.tensor) }
  subscript(letter: String) -> [Double] { all(letter).first?.values ?? [] }
  func rows(_ letter: String) -> [[Double]] { all(letter).first.map(rows) ?? [] }
  func rows(_ tensor: NamedTensors.Element) -> [[Double]] {
    let width = tensor.shape.last ?? 1
    return stride(from: 0, to: tensor.values.count, by: max(1, width)).map { Array(tensor.values[$0..<$0 + width]) }
  }
}

// MARK: Operations by their equations

private func dot(_ a: some Sequence<Double>, _ b: some Sequence<Double>) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
private func shares(_ z: [Double]) -> [Double] {
  let most = z.max() ?? 0
  let powers = z.map { exp($0 - most) }
  return powers.map { $0 / powers.reduce(0, +) }
}

extension GeneratedCase {
  func embedding() -> [Double] {
    let table = rows("W")
    return self["input_ids"].flatMap { id in table[Int(id)].map { number("scale") * $0 } }
  }

  private func rho(_ x: [Double]) -> Double { 1 / (dot(x, x) / Double(x.count) + number("epsilon")).squareRoot() }
  private var gain: [Double] { self["w"].map { number("offset") + $0 } }

  func norm() -> [Double] { rows("x").flatMap { x in zip(x, gain).map { rho(x) * $0 * $1 } } }

  func normGradient() -> [Double] {
    let beside = rows("dz")
    return zip(rows("x"), rows("dy")).enumerated().flatMap { n, pair in
      let (x, dy, rho) = (pair.0, zip(pair.1, gain).map(*), rho(pair.0))
      let along = rho * rho * rho * dot(dy, x) / Double(x.count)
      return x.indices.map { rho * dy[$0] - x[$0] * along + (beside.isEmpty ? 0 : beside[n][$0]) }
    }
  }

  private func linear(_ x: [[Double]], base: [[Double]]) -> [Double] {
    let (w, a, b) = (rows("W"), rows("A"), rows("B"))
    return x.indices.flatMap { n in
      let low = a.map { number("scale") * dot($0, x[n]) }
      return (0..<max(w.count, b.count)).map { o in
        (w.isEmpty ? base[n][o] : dot(w[o], x[n])) + (b.isEmpty ? 0 : dot(b[o], low))
      }
    }
  }

  func linear() -> [Double] { linear(rows("x"), base: []) }

  /// An expert's rows are those of its tokens.
  func expertLinear() -> [Double] {
    let (x, base, tokens) = (rows("x"), rows("base"), self["tokens"].map { Int($0) })
    return linear(tokens.map { x[$0] }, base: base.isEmpty ? [] : tokens.map { base[$0] })
  }

  func rotary(_ letter: String, isBack: Bool) -> [Double] {
    let (cosines, sines, width) = (rows("cos"), rows("sin"), Int(number("head_width")))
    return rows(letter).enumerated().flatMap { n, x in
      x.indices.map { i in
        let (j, half) = (i % width, width / 2)
        let sine = isBack ? -sines[n][j % half] : sines[n][j % half]
        return x[i] * cosines[n][j % half] + (j < half ? -x[i + half] : x[i - half]) * sine
      }
    }
  }

  /// P of a row in a head over the rows from the first of its sequence on.
  private func probabilities(_ n: Int, _ h: Int) -> (first: Int, p: [Double]) {
    let (q, k, width) = (rows("q"), rows("k"), Int(number("head_width")))
    let first = self["sequence_offsets"].map { Int($0) }.last { $0 <= n } ?? 0
    let group = h / Int(number("heads") / number("key_value_heads"))
    func head(_ row: [Double], _ h: Int) -> ArraySlice<Double> { row[h * width..<(h + 1) * width] }
    return (first, shares((first...n).map { number("scale") * dot(head(q[n], h), head(k[$0], group)) }))
  }

  func attention() -> [Double] {
    let (v, width) = (rows("v"), Int(number("head_width")))
    return v.indices.flatMap { n in
      (0..<Int(number("heads"))).flatMap { h in
        let (first, p) = probabilities(n, h)
        let group = h / Int(number("heads") / number("key_value_heads"))
        return (0..<width).map { d in p.indices.reduce(0) { $0 + p[$1] * v[first + $1][group * width + d] } }
      }
    }
  }

  /// dv_j = Σ_i P_ij do_i.
  func valueGradient() -> [Double] {
    let (gradient, width) = (rows("do"), Int(number("head_width")))
    let groups = Int(number("key_value_heads"))
    var dv = [[Double]](repeating: [Double](repeating: 0, count: groups * width), count: gradient.count)
    for n in gradient.indices {
      for h in 0..<Int(number("heads")) {
        let (first, p) = probabilities(n, h)
        let group = h / (Int(number("heads")) / groups)
        for (j, p) in p.enumerated() { for d in 0..<width { dv[first + j][group * width + d] += p * gradient[n][h * width + d] } }
      }
    }
    return dv.flatMap { $0 }
  }

  func softmax() -> [Double] { rows("z").flatMap(shares) }

  func routerWeights() -> [Double] {
    zip(rows("p"), rows("choice")).flatMap { p, choice in
      let chosen = choice.map { p[Int($0)] }
      return chosen.map { $0 / chosen.reduce(0, +) }
    }
  }

  func gated() -> [Double] { zip(self["a"], self["c"]).map { a, c in a / (1 + exp(-a)) * c } }

  func gatedGradient() -> [Double] {
    let (dh, c) = (self["dh"], self["c"])
    return self["a"].enumerated().map { i, a in
      let sigmoid = 1 / (1 + exp(-a))
      return dh[i] * c[i] * (sigmoid + a * sigmoid * (1 - sigmoid))
    }
  }

  func combine() -> [Double] {
    let (w, choice, tokens, values) = (rows("w"), rows("choice"), all("tokens"), all("e"))
    var y = [[Double]](repeating: [Double](repeating: 0, count: values[0].shape.last ?? 0), count: w.count)
    for expert in values.indices {
      for (row, token) in zip(rows(values[expert]), tokens[expert].values.map({ Int($0) })) {
        let slot = choice[token].firstIndex(of: Double(expert)) ?? 0
        for i in row.indices { y[token][i] += w[token][slot] * row[i] }
      }
    }
    return y.flatMap { $0 }
  }

  func crossEntropy() -> [Double] {
    let losses = zip(rows("logits"), self["labels"]).compactMap { $1 < 0 ? nil : -log(shares($0)[Int($1)]) }
    return [losses.reduce(0, +) / Double(losses.count)]
  }

  func crossEntropyGradient() -> [Double] {
    let labels = self["labels"]
    let count = Double(labels.count { $0 >= 0 })
    return zip(rows("z"), labels).flatMap { z, label in
      shares(z).enumerated().map { label < 0 ? 0 : ($1 - (Double($0) == label ? 1 : 0)) / count }
    }
  }

  /// dA = Σ_n (s Bᵀ dy_n) x_nᵀ.
  func branchGradient() -> [Double] {
    let (b, dy, x) = (rows("B"), rows("dy"), rows("x"))
    return b[0].indices.flatMap { j in
      let back = dy.map { dy in number("scale") * dot(b.map { $0[j] }, dy) }
      return x[0].indices.map { i in dot(back, x.map { $0[i] }) }
    }
  }

  func adamW() -> [Double] {
    let (m, v, rate) = (self["m"], self["v"], number("learning_rate"))
    return self["w"].enumerated().map { i, w in
      let root = (v[i] / (1 - number("beta2"))).squareRoot() + number("epsilon")
      return w * (1 - rate * number("weight_decay")) - rate / (1 - number("beta1")) * m[i] / root
    }
  }
}
