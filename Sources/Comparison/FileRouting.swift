import Checkpoints
import Conformance
import Platform

/// What two files recorded of their routing: whose decisions differ, which rows of an expert are the same token's, and what a decision
/// that fell the other way reaches.
///
/// Tokens are places b·T + t of the batch. A file's decisions are its `moe_gate.choice`, else what its experts' `tokens` say together.
struct FileRouting {
  /// The decisions of a router in one file.
  private struct Side {
    /// By place, in the order of `choice`.
    var experts: [Int: [Int]] = [:]
    /// The place of each of an expert's rows.
    var rows: [Int: [Int]] = [:]
    /// What is wrong with them.
    var fault: String?
    let isKnown: Bool
    /// Whether a token's experts stand in the order of its weights: tokens alone do not say.
    let isOrdered: Bool

    /// - Parameter experts: how many there are, or may be.
    init(
      _ file: Candidate, _ module: String, experts count: Int, columns: Int, _ isReal: (_ place: Int, _ experts: [Int]) -> Bool
    ) throws {
      let (choice, prefix) = (file.tensors["\(module).moe_gate.choice"], "\(module).experts.")
      let recorded = file.tensors.keys.filter { $0.hasPrefix(prefix) && $0.hasSuffix(".tokens") }
      (isKnown, isOrdered) = (choice != nil || !recorded.isEmpty, choice != nil)
      for name in recorded.sorted() {
        guard let expert = Int(name.dropFirst(prefix.count).prefix { $0 != "." }), (0..<count).contains(expert),
          let values = try file.tensors[name]?.values()
        else { continue }
        fault = fault ?? RecordedDecision.fault(inTokens: values, columns: columns).map { "\(name): \($0)" }
        rows[expert] = values.map { Int(exactly: $0) ?? -1 }
        if choice == nil { for place in rows[expert] ?? [] { experts[place, default: []].append(expert) } }
      }
      guard let choice, let width = choice.entry.shape.last, width > 0 else { return }
      let values = try choice.values()
      for place in 0..<values.count / width {
        let own = Array(values[place * width..<(place + 1) * width])
        let chosen = own.compactMap { Int(exactly: $0) }.filter((0..<count).contains)
        guard isReal(place, chosen) else { continue }
        if let found = RecordedDecision.fault(inChoice: own, experts: count) {
          fault = fault ?? "\(module).moe_gate.choice: the token in \(RecordedDecision.place(place, columns)) \(found)"
        }
        experts[place] = chosen
        for expert in Set(chosen) where !recorded.contains("\(prefix)\(expert).tokens") { rows[expert, default: []].append(place) }
      }
    }
  }

  private struct Gate {
    let module: String
    let ours: Side, theirs: Side
    var layer: RoutingAgreement.Layer
  }

  /// A decision that fell the other way within rounding.
  private struct Flip {
    let place: Int
    let layer: Int
    let position: Int
  }

  /// So many experts a router may have that shows no logits.
  private static let mostExperts = 1024

  private var gates: [Gate] = []
  private var flips: [Flip] = []
  private let positions: [String: Int]
  private let tokens: Int, columns: Int

  /// Reads the routing that both files have; `order` is that of the run.
  init(_ golden: Candidate, _ candidate: Candidate, _ order: [String], _ precision: Precision) throws {
    positions = Dictionary(zip(order, 0...)) { first, _ in first }
    // (B,T): of the logits, else of any router's decisions.
    let sizes = order.lazy.compactMap { name -> [Int]? in
      guard name == "logits" || name.hasSuffix(".choice"), let entry = golden.tensors[name]?.entry, entry.shape.count == 3,
        entry.elementCount > 0
      else { return nil }
      return Array(entry.shape.prefix(2))
    }.first
    (tokens, columns) = (sizes.map { $0[0] * $0[1] } ?? 0, sizes.map { $0[1] } ?? 0)
    var modules: [String] = []
    for name in order {
      guard let range = name.firstRange(of: ".experts.") ?? name.firstRange(of: ".moe_gate."),
        name.hasSuffix(".tokens") || name.hasSuffix(".choice")
      else { continue }
      let module = String(name[..<range.lowerBound])
      if !modules.contains(module) { modules.append(module) }
    }
    for module in modules { try read(module, golden, candidate, precision) }
  }

  private mutating func read(_ module: String, _ golden: Candidate, _ candidate: Candidate, _ precision: Precision) throws {
    let (path, number) = ("\(module).moe_gate", RunOrder.layer(of: module) ?? 0)
    let logits = try logits(path, layer: number, golden)
    let width = logits.map { $0.count / max(1, tokens) } ?? 0
    func row(_ place: Int) -> ArraySlice<Double> {
      guard let logits, width > 0, (0..<logits.count / width).contains(place) else { return [] }
      return logits[place * width..<(place + 1) * width]
    }
    // A trace is zero at padding: in the logits, and in a decision, which then has an expert twice.
    let experts = width > 0 ? width : Self.mostExperts
    let ours = try Side(golden, module, experts: experts, columns: columns) { place, experts in
      (logits == nil || row(place).contains { $0 != 0 }) && Set(experts).count == experts.count
    }
    let theirs = try Side(candidate, module, experts: experts, columns: columns) { place, _ in ours.experts[place] != nil }
    guard ours.isKnown, theirs.isKnown else { return }
    if let choice = golden.tensors["\(path).choice"], let other = candidate.tensors["\(path).choice"] {
      func rows(_ entry: TensorEntry) -> Int { entry.elementCount / max(1, entry.shape.last ?? 1) }
      guard rows(choice.entry) == rows(other.entry) else {
        throw CheckpointError(
          file: other.source.file, place: .tensor(other.entry.name), found: "shape \(other.entry.shape)",
          expected: "decisions of \(counted(rows(choice.entry), "token")), as the reference's \(choice.entry.shape) has")
      }
    }
    var layer = RoutingAgreement.Layer(path: path)
    let position = positions["\(path).choice"] ?? positions.filter { $0.key.hasPrefix("\(module).experts.") }.values.min() ?? 0
    let noise = logits.map { Budget.figure(.product, in: precision) * rootMeanSquare($0.filter { $0 != 0 }) } ?? 0
    for place in ours.experts.keys.sorted() {
      let flip = RoutingFlip(
        own: ours.experts[place] ?? [], other: theirs.experts[place] ?? [], logits: Array(row(place)), policy: nil, noise: noise,
        roundoff: precision.unitRoundoff)
      let isExplained = flip.isWithin || isReached(place, layer: number, position)
      let (row, column) = columns > 0 ? place.quotientAndRemainder(dividingBy: columns) : (0, place)
      layer.add(flip, isExplained: isExplained, row: row, column: column)
      if flip.isFlip, isExplained { flips.append(Flip(place: place, layer: number, position: position)) }
    }
    gates.append(Gate(module: module, ours: ours, theirs: theirs, layer: layer))
  }

  /// The logits (B·T,E) of a router: its own point, else its part of `router_logits`.
  private func logits(_ path: String, layer: Int, _ file: Candidate) throws -> [Double]? {
    if let own = file.tensors["\(path).output"], tokens > 0 { return try own.values() }
    let prefix = path.firstRange(of: "model.layers.").map { path[..<$0.lowerBound] } ?? ""
    guard let all = file.tensors["\(prefix)router_logits"], let experts = all.entry.shape.last, tokens > 0, all.entry.elementCount > 0
    else { return nil }
    let size = tokens * experts
    guard layer < all.entry.elementCount / size else { return nil }
    return Array(try all.values()[layer * size..<(layer + 1) * size])
  }

  /// How the decisions agree; nil where a file has none.
  var agreement: RoutingAgreement? { gates.isEmpty ? nil : RoutingAgreement(layers: gates.map(\.layer)) }

  /// What is wrong with decisions, in words.
  var faults: [String] { gates.flatMap { [$0.ours.fault.map { "in the reference " + $0 }, $0.theirs.fault].compactMap { $0 } } }

  // MARK: Decisions

  private func gate(of name: String) -> Gate? {
    let path = name.replacing("grad.", with: "", maxReplacements: 1)
    return gates.first { path.hasPrefix("\($0.module).") }
  }

  /// What is said of `choice` and `tokens`; nil for other tensors, and where a file does not say how it decided.
  func verdict(of name: String) -> (layer: RoutingAgreement.Layer, verdict: TensorJudgement.Verdict)? {
    guard name.hasSuffix(".moe_gate.choice") || name.hasSuffix(".tokens"), let gate = gate(of: name) else { return nil }
    let layer = gate.layer
    if gate.ours.fault != nil || gate.theirs.fault != nil || !followsChoice(name, gate) { return (layer, .mismatch) }
    return (layer, layer.flips == 0 ? .ok : layer.flips == layer.explained ? .routing : .mismatch)
  }

  /// Whether an expert's tokens are those that the candidate's own choice gives it.
  private func followsChoice(_ name: String, _ gate: Gate) -> Bool {
    guard let expert = Self.expert(of: name), let rows = gate.theirs.rows[expert] else { return true }
    return rows.allSatisfy { gate.theirs.experts[$0]?.contains(expert) == true }
      && gate.theirs.experts.allSatisfy { !$0.value.contains(expert) || rows.contains($0.key) }
  }

  // MARK: Rows

  private static func expert(of name: String) -> Int? {
    guard let range = name.firstRange(of: ".experts."), !name.hasSuffix(".weight"), !name.hasSuffix(".bias") else { return nil }
    return Int(name[range.upperBound...].prefix { $0 != "." })
  }

  /// The rows of an expert that both files have.
  struct Pairing {
    /// Row numbers, one beside the other in the order of the reference, and their tokens.
    var ours: [Int] = [], theirs: [Int] = [], tokens: [Int] = []
    /// How many rows each file must have.
    let counts: (ours: Int, theirs: Int)
    var isComplete: Bool { ours.count == counts.ours && theirs.count == counts.theirs }
    /// Whether the decisions in which they differ are within rounding.
    let isExplained: Bool
  }

  /// How an expert's rows lie side by side; nil for other tensors, and where a file does not say which tokens they are.
  func pairing(of name: String) -> Pairing? {
    guard let gate = gate(of: name), let expert = Self.expert(of: name) else { return nil }
    let (ours, theirs) = (gate.ours.rows[expert] ?? [], gate.theirs.rows[expert] ?? [])
    let places = Dictionary(zip(theirs, 0...)) { first, _ in first }
    var pairing = Pairing(counts: (ours.count, theirs.count), isExplained: gate.layer.flips == gate.layer.explained)
    for (row, token) in ours.enumerated() {
      guard let other = places[token] else { continue }
      pairing.ours.append(row)
      pairing.theirs.append(other)
      pairing.tokens.append(token)
    }
    return pairing
  }

  /// Values (B·T,K) in the order of the candidate's choices, put into that of the reference's; others as they are.
  func inOrder(_ values: [Double], of name: String) -> [Double] {
    guard name.contains(".moe_gate.weights."), let gate = gate(of: name), gate.ours.isOrdered, gate.theirs.isOrdered, tokens > 0,
      values.count % tokens == 0
    else { return values }
    let slots = values.count / tokens
    var ordered = values
    for (place, own) in gate.ours.experts {
      guard let other = gate.theirs.experts[place], own.count <= slots, own.count == other.count, Set(own) == Set(other),
        (0..<tokens).contains(place)
      else {
        continue
      }
      for (slot, expert) in own.enumerated() {
        ordered[place * slots + slot] = values[place * slots + (other.firstIndex(of: expert) ?? slot)]
      }
    }
    return ordered
  }

  // MARK: Reach

  /// The rows of a tensor that no decision within rounding reaches; nil where none comes before it.
  ///
  /// A decision reaches its token behind its router, and in later layers that token and the later ones of its sequence, which read it.
  /// Losses, and everything that is behind them, read all tokens.
  func unreached(_ name: String, rows: Int, tokens own: [Int]?) -> [Int]? {
    guard let position = positions[name], flips.contains(where: { $0.position < position }) else { return nil }
    let isOfTokens = own != nil || tokens > 0 && rows % tokens == 0
    guard RunOrder.phase(of: name) == .forward, isOfTokens, !name.hasSuffix("loss") else { return [] }
    return (0..<rows).filter { row in
      let place = own?[row] ?? row % tokens
      let isStacked = own == nil && rows > tokens  // router_logits, layer by layer
      let layer = isStacked ? row / tokens : RunOrder.layer(of: name) ?? .max
      return !isReached(place, layer: layer, isStacked ? .max : position, isBefore: isStacked)
    }
  }

  /// - Parameter isBefore: whether the value stands before its own layer's decision.
  private func isReached(_ place: Int, layer: Int, _ position: Int, isBefore: Bool = false) -> Bool {
    flips.contains { flip in
      guard flip.position < position else { return false }
      if flip.layer == layer { return !isBefore && place == flip.place }
      return flip.layer < layer && place >= flip.place && (columns == 0 || place / columns == flip.place / columns)
    }
  }
}

private func rootMeanSquare(_ x: [Double]) -> Double { x.isEmpty ? 0 : (x.reduce(0) { $0 + $1 * $1 } / Double(x.count)).squareRoot() }
