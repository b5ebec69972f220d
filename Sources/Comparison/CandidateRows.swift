import Checkpoints
import Conformance
import Decoders
import Layers
import Platform
import Tensors
import Traces

/// A candidate's values in the rows of a packed batch: its (B,T,width) without padding, an expert's rows in the order of our plan, and
/// what it decided where.
final class CandidateRows<B: Backend> {
  let candidate: Candidate
  private let layout: TraceLayout<B>
  private let backend: B
  /// The candidate's decisions by the path of the choice, (n,S) packed; only those that can be followed.
  private(set) var choices: [String: [Int32]] = [:]
  /// By the path of the choice: decisions that name no expert, or one twice, in words.
  private(set) var wrongChoices: [String: String] = [:]
  /// Number among all real tokens of each place b·T + t.
  private let rank: [Int: Int]

  init(_ candidate: Candidate, _ layout: TraceLayout<B>, on backend: B) throws {
    (self.candidate, self.layout, self.backend) = (candidate, layout, backend)
    rank = Dictionary(uniqueKeysWithValues: layout.places.sorted().enumerated().map { ($1, $0) })
    for owner in layout.owners {
      for (layer, gate) in layout.gates(of: owner).enumerated() { try readChoice(gate, layer, owner) }
    }
  }

  // MARK: Values

  /// Whether the candidate has a tensor of this name.
  func has(_ name: String) -> Bool { candidate.tensors[name] != nil }

  /// The values of a point's rows; nil where the candidate has none, or none that can be laid beside ours.
  ///
  /// - Parameter choice: the decision (n,S) that orders an expert's rows.
  /// - Throws: `CheckpointError` for a wrong shape.
  func values(_ name: String, path: String, _ shape: Shape, choice: (_ gate: String) -> [Int32]?) throws -> [Double]? {
    guard let tensor = candidate.tensors[name] else { return nil }
    if let range = path.firstRange(of: ".experts.") {
      return try expertRows(tensor, name, path, String(path[..<range.lowerBound]), shape, choice)
    }
    let places = layout.places(ofPath: path, rows: shape.rows)
    return try gathered(tensor, name, Array(places), width: shape.columns)
  }

  /// A layer's part of `router_logits` (layers·B·T,E).
  func routerLogits(_ owner: TraceLayout<B>.Owner, layer: Int, layers: Int) throws -> [Double]? {
    let name = owner.prefix + "router_logits"
    guard let tensor = candidate.tensors[name] else { return nil }
    let (tokens, experts) = (layout.batch.rows * layout.batch.columns, owner.mixture.experts)
    let places = Array(layout.places(of: owner))
    let all = try tensor.values()
    if all.count == layers * tokens * experts {
      return places.flatMap { place in all[(layer * tokens + place) * experts..<(layer * tokens + place + 1) * experts] }
    }
    if all.count == layers * places.count * experts {
      return Array(all[layer * places.count * experts..<(layer + 1) * places.count * experts])
    }
    throw wrongShape(tensor, name, "(\(layers)·\(layout.batch.rows)·\(layout.batch.columns), \(experts))")
  }

  /// A tensor of exactly these sizes, or as many elements where all sizes but ones agree.
  func values(_ name: String, shape: [Int]) throws -> [Double]? {
    guard let tensor = candidate.tensors[name] else { return nil }
    let (found, expected) = (tensor.entry.shape.filter { $0 != 1 }, shape.filter { $0 != 1 })
    guard found == expected else { throw wrongShape(tensor, name, "\(shape)") }
    return try tensor.values()
  }

  private func gathered(_ tensor: Candidate.Tensor, _ name: String, _ places: [Int], width: Int) throws -> [Double] {
    let (b, t, n) = (layout.batch.rows, layout.batch.columns, layout.places.count)
    // Leading axes are rows, trailing ones make up the width: (B,T,W), (B·T,W), (N,W), (B,T,H,D).
    var (rows, trailing, trailingAxes) = (tensor.entry.elementCount, 1, 0)
    for size in tensor.entry.shape.reversed() where trailing < width || trailingAxes == 0 {
      trailing *= size
      trailingAxes += 1
    }
    rows = trailing == width && width > 0 ? rows / width : -1
    let leading = tensor.entry.shape.dropLast(trailingAxes).filter { $0 != 1 }
    guard rows == b * t || rows == n, [[b, t], [b * t], [n]].contains(where: { $0.filter { $0 != 1 } == leading }) else {
      throw wrongShape(tensor, name, "(\(b), \(t), \(width)), or (\(n), \(width)) without padding")
    }
    let all = try tensor.values()
    if rows == b * t { return places.flatMap { all[$0 * width..<($0 + 1) * width] } }
    return places.flatMap { place in
      let row = rank[place] ?? 0
      return all[row * width..<(row + 1) * width]
    }
  }

  private func expertRows(
    _ tensor: Candidate.Tensor, _ name: String, _ path: String, _ module: String, _ shape: Shape, _ choice: (String) -> [Int32]?
  ) throws -> [Double]? {
    guard tensor.entry.shape.count == 2, tensor.entry.shape[1] == shape.columns else {
      throw wrongShape(tensor, name, "(rows, \(shape.columns))")
    }
    let rest = path.dropFirst(module.count + ".experts.".count)
    guard let expert = Int(rest.prefix { $0 != "." }), let tokens = try tokens(module, expert) else {
      return tensor.entry.shape[0] == shape.rows ? try tensor.values() : nil  // in our order, as far as one can see
    }
    guard tokens.count == tensor.entry.shape[0] else {
      throw wrongShape(tensor, name, "(\(tokens.count), \(shape.columns)), as many rows as \(module).experts.\(expert).tokens")
    }
    guard let gate = choice("\(module).moe_gate.choice"), let owner = layout.owner(ofPath: path) else { return nil }
    let places = Array(layout.places(of: owner))
    let slots = owner.mixture.policy.slots(of: owner.mixture.experts)
    let own = Self.tokens(of: expert, in: gate, slots: slots).map { places[$0] }
    let rows = Dictionary(zip(tokens, 0...)) { first, _ in first }
    guard own.count == tokens.count, Set(own) == Set(tokens) else { return nil }  // another set of tokens: the routing's difference
    let (all, width) = (try tensor.values(), shape.columns)
    return own.flatMap { place in
      let row = rows[place] ?? 0
      return all[row * width..<(row + 1) * width]
    }
  }

  /// The tokens that a decision (n,S) gives an expert.
  static func tokens(of expert: Int, in choice: [Int32], slots: Int) -> [Int] {
    (0..<choice.count / slots).filter { choice[$0 * slots..<($0 + 1) * slots].contains(Int32(expert)) }
  }

  /// Which places an expert's rows are, as the file has them; nil where it does not say.
  func recordedTokens(_ module: String, _ expert: Int) throws -> [Double]? {
    try candidate.tensors["\(module).experts.\(expert).tokens"]?.values()
  }

  /// The same, −1 for what is no place.
  private func tokens(_ module: String, _ expert: Int) throws -> [Int]? {
    try recordedTokens(module, expert)?.map { Int(exactly: $0) ?? -1 }
  }

  private func wrongShape(_ tensor: Candidate.Tensor, _ name: String, _ expected: String) -> CheckpointError {
    CheckpointError(
      file: tensor.source.file, place: .tensor(tensor.entry.name), found: "shape \(tensor.entry.shape)",
      expected: "\(expected)\(tensor.entry.name == name ? "" : ", as \(name) has")")
  }

  // MARK: Decisions

  /// From `choice`, else from every expert's `tokens`, else from the router's logits.
  private func readChoice(_ gate: String, _ layer: Int, _ owner: TraceLayout<B>.Owner) throws {
    let (path, module) = ("\(gate).choice", String(gate.dropLast(".moe_gate".count)))
    let (experts, policy) = (owner.mixture.experts, owner.mixture.policy)
    let slots = policy.slots(of: experts)
    let places = Array(layout.places(of: owner))
    let columns = layout.batch.columns
    let logits =
      try values("\(gate).output", path: gate + ".output", Shape(places.count, experts)) { _ in nil }
      ?? routerLogits(owner, layer: layer, layers: layout.gates(of: owner).count)
    var chosen: [Int32]?
    if let tensor = candidate.tensors[path] {
      let width = tensor.entry.shape.last ?? 0
      let found = try gathered(tensor, path, places, width: width)
      guard width <= slots || places.isEmpty else { throw wrongShape(tensor, path, "(…, \(slots))") }
      for n in places.indices {
        guard let fault = RecordedDecision.fault(inChoice: found[n * width..<(n + 1) * width], experts: experts) else { continue }
        wrongChoices[path] = "\(path): the token in \(RecordedDecision.place(places[n], columns)) \(fault)"
        return
      }
      chosen = places.indices.flatMap { n in
        found[n * width..<(n + 1) * width].map { Int32($0) } + repeatElement(Int32(-1), count: slots - width)
      }
    } else if let tokens = try allTokens(module, experts) {
      let row = Dictionary(zip(places, 0...)) { first, _ in first }
      var lists = [[Int32]](repeating: [], count: places.count)
      for (e, own) in tokens.enumerated() {
        if let fault = RecordedDecision.fault(inTokens: own, columns: columns, isToken: { row[$0] != nil }) {
          wrongChoices[path] = "\(module).experts.\(e).tokens: \(fault)"
          return
        }
        for place in own { lists[row[Int(place)] ?? 0].append(Int32(e)) }
      }
      if let n = lists.firstIndex(where: { $0.count > slots }) {
        wrongChoices[path] =
          "\(path): the token in \(RecordedDecision.place(places[n], columns)) has \(counted(lists[n].count, "expert")), expected at most \(slots)"
        return
      }
      // Tokens say nothing of the order of a token's experts, which its weights have: largest first.
      if let logits { for n in lists.indices { lists[n].sort { logits[n * experts + Int($0)] > logits[n * experts + Int($1)] } } }
      chosen = lists.flatMap { $0 + repeatElement(Int32(-1), count: slots - $0.count) }
    } else {
      if let logits, logits.allSatisfy(\.isFinite) {
        chosen = try backend.download(
          backend.choose(backend.softmax(backend.upload(logits.map { B.Scalar($0) }, Shape(places.count, experts))), policy))
      }
    }
    choices[path] = chosen
  }

  private func allTokens(_ module: String, _ experts: Int) throws -> [[Double]]? {
    var all: [[Double]] = []
    for e in 0..<experts {
      guard let own = try recordedTokens(module, e) else { return nil }
      all.append(own)
    }
    return all
  }
}
