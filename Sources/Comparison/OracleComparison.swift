import Checkpoints
import Conformance
import Decoders
import Layers
import Tensors
import Traces

/// A candidate against the float64 oracle, operation by operation.
///
/// Runs of one model over the batch:
///
///     local      exact      every value that the candidate has takes the place of ours: each operation on the candidate's inputs
///                rounded    the same in the candidate's precision: what rounding explains of a local error
///     whole      exact      by itself, and where decisions flipped once more with the candidate's
///                rounded    the same in the candidate's precision: what rounding explains of an error that has grown
///
/// A tensor is wrong if its local error is more than rounding explains. If it is not, and the whole error is, the error came from before.
final class OracleComparison<Exact: Backend & MatrixFactorizing> where Exact.Scalar == Double {
  typealias B = RoundingBackend<Exact>

  /// What is known of one tensor.
  struct Record {
    let order: Int
    var phase = "forward"
    var shape: [Int] = []
    var metrics = TensorMetrics()
    /// ‖candidate − ours‖₂ and ‖ours‖₂ of the whole run, of it with the candidate's decisions, and of the local run.
    var whole: Distance?
    var replayed: Distance?
    var local: Distance?
    /// Mean squares of the rounded runs' ‖rounded − exact‖₂.
    var wholeRounding = MeanSquare()
    var localRounding = MeanSquare()
    /// Of a loss that is stored in more bits than its run has: the local run in single precision.
    var fineRounding = MeanSquare()
    /// The largest row of the local rounded runs' difference.
    var largestRounding = 0.0
  }

  struct MeanSquare {
    var sum = 0.0
    var samples = 0
    var root: Double { samples == 0 ? 0 : (sum / Double(samples)).squareRoot() }
    /// What left the finite numbers explains nothing.
    mutating func add(_ difference: Double) {
      guard difference.isFinite else { return }
      sum += difference * difference
      samples += 1
    }
  }

  /// A router's own logits (n,E) in the exact runs, and what rounding makes of one of them.
  struct GateLogits {
    /// On the candidate's input, before the candidate's take their place.
    var local: [Double] = []
    var localNoise = 0.0
    /// By itself, and with the candidate's decisions before it.
    var whole: [Double] = []
    var replayed: [Double] = []
    var wholeNoise = 0.0
  }

  let model: OracleModel<Exact>
  let rows: CandidateRows<B>
  let request: ComparisonRequest
  let precision: Precision
  let order: RunOrder
  let steps: OracleModel<Exact>.Steps
  private(set) var records: [String: Record] = [:]
  /// The exact values of the run that rounded runs are held against.
  private var ours: [String: [Double]] = [:]
  /// By the router's path.
  private(set) var gates: [String: GateLogits] = [:]
  /// The decisions in force in the run that goes on.
  private(set) var inForce: [String: [Int32]] = [:]
  private var ownChoices: [String: [Int32]] = [:]
  /// Every router's logits in the run's first pass, before the candidate's take their place.
  var firstLogits: [String: [Double]] = [:]
  private let needsBackward: Bool
  /// Who takes the values instead of the records, and what is done otherwise, while a cause is looked for.
  var capture: ((_ name: String, _ values: [Double], _ theirs: () throws -> [Double]?) throws -> Void)?
  var trial: CauseFinder<Exact>.Trial?
  /// Points that are seen although the candidate has nothing there.
  var seenPaths: Set<String> = []
  /// Sizes in a trace of what was captured.
  var shapes: [String: [Int]] = [:]
  var othersCache: (name: String, values: [(name: String, values: [Double])])?

  var candidate: Candidate { rows.candidate }
  /// What elements are held against; nil where norms are, against budgets.
  var rule: ElementRule? { ElementRule(request) }
  /// What the candidate's element type rounds by.
  func roundoff(of name: String) -> Double { candidate.tensors[name]?.precision?.unitRoundoff ?? precision.unitRoundoff }

  init(
    _ model: OracleModel<Exact>, _ candidate: Candidate, _ request: ComparisonRequest, _ precision: Precision, _ order: RunOrder,
    _ steps: OracleModel<Exact>.Steps
  ) throws {
    (self.model, self.request, self.precision, self.order, self.steps) = (model, request, precision, order, steps)
    rows = try CandidateRows(candidate, model.layout, on: model.backend)
    needsBackward = candidate.tensors.keys.contains { $0.hasPrefix("grad.") || $0.contains(".grad.") } || steps.count > 0
  }

  /// Whether a tensor was judged here.
  func hasJudged(_ name: String) -> Bool {
    records[name] != nil || name.hasSuffix(".choice") || name.hasSuffix(".tokens")
  }

  // MARK: The runs

  /// Makes all runs; `progress` hears which one goes on.
  func run(progress: (String) -> Void) throws {
    // Of large tensors one sample says how far rounding goes; small models cost nothing, and have only small ones.
    let samples = model.layout.places.count * model.decoder.configuration.channels > 1 << 13 ? 2 : 6
    progress("each operation on the candidate's inputs")
    try pass(.localExact, precision: nil, seed: 0)
    for sample in 1...samples {
      progress("the same in \(precision.rawValue), \(sample) of \(samples)")
      try pass(.localRounded, precision: precision, seed: UInt64(sample))
    }
    if candidate.tensors.keys.contains(where: isFineLoss) {
      for sample in 1...samples { try pass(.localFine, precision: .float32, seed: UInt64(100 + sample)) }
    }
    ours = [:]
    progress("the oracle by itself")
    try pass(.wholeExact, precision: nil, seed: 0)
    if request.replaysRouting || hasFlips {
      ours = [:]
      progress("the oracle with the candidate's decisions")
      try pass(.replayedExact, precision: nil, seed: 0)
    }
    for sample in 1...samples {
      progress("the same in \(precision.rawValue), \(sample) of \(samples)")
      try pass(.wholeRounded, precision: precision, seed: UInt64(1000 + sample))
    }
    ours = [:]
  }

  enum Pass {
    case localExact, localRounded, localFine, wholeExact, replayedExact, wholeRounded
    var isLocal: Bool { [.localExact, .localRounded, .localFine].contains(self) }
    var isExact: Bool { self == .localExact || self == .wholeExact || self == .replayedExact }
  }

  /// True if the oracle by itself decides otherwise than the candidate anywhere.
  var hasFlips: Bool {
    rows.choices.contains { path, theirs in
      guard let own = ownChoices[path] else { return false }
      return own.count == theirs.count && !Self.agree(own, theirs, slots: slots(path))
    }
  }

  private func slots(_ path: String) -> Int {
    model.layout.owner(ofPath: path).map { $0.mixture.policy.slots(of: $0.mixture.experts) } ?? 1
  }

  /// Whether every token has the same set of experts.
  static func agree(_ a: [Int32], _ b: [Int32], slots: Int) -> Bool {
    stride(from: 0, to: a.count, by: slots).allSatisfy { Set(a[$0..<$0 + slots]) == Set(b[$0..<$0 + slots]) }
  }

  func pass(_ pass: Pass, precision: Precision?, seed: UInt64) throws {
    inForce = [:]
    let followed = pass.isLocal || pass == .replayedExact || (pass == .wholeRounded && records.values.contains { $0.replayed != nil })
    let (always, names) = (routerPaths, wantedPaths)
    var gateLogits: [String: [[Double]]] = [:]
    let hook = OracleHook<B>(
      on: model.backend, { always.contains($0) || names.contains($0) || self.seenPaths.contains($0) },
      see: { value in
        try self.see(value, pass)
        if value.phase == .forward, value.path.hasSuffix(".moe_gate.output") { self.firstLogits[value.path] = value.values }
        if value.phase == .forward, value.path.hasSuffix(".moe_gate.output"), let owner = self.model.layout.owner(ofPath: value.path) {
          gateLogits[owner.prefix, default: []].append(value.values)
          if self.trial == nil { self.seeLogits(value, pass) }
        }
      },
      replacement: { name, path, shape in
        if let silenced = self.trial?.silenced, silenced == name || Self.group(name) == silenced {
          return [Double](repeating: 0, count: shape.count)
        }
        // Of several steps only the first begins with the gradients that the candidate has.
        guard pass.isLocal, !self.isParameter(name) || self.steps.count == 1 else { return nil }
        guard let values = try self.theirs(name, path, shape), values.allSatisfy(\.isFinite) else { return nil }
        return values
      },
      decide: { path, own in
        if pass == .wholeExact { self.ownChoices[path] = own }
        var choice = own
        if followed, let theirs = self.rows.choices[path], theirs.count == own.count {
          choice = theirs
        } else if pass == .wholeRounded, let exact = self.ownChoices[path] {
          choice = exact
        }
        self.inForce[path] = choice
        return choice
      })
    try model.run(
      hook, laterHook: laterHook(followed), precision: precision, seed: seed, backward: needsBackward, steps: steps,
      zeroedBranches: trial?.zeroedBranches,
      assignments: trial?.assignments ?? [], rounded: trial?.rounded ?? [],
      emit: { name, shape, values in try self.judge(name, pass, shape, values) { try self.rows.values(name, shape: shape) } })
    for owner in model.layout.owners {
      let name = owner.prefix + "router_logits"
      guard rows.has(name), let layers = gateLogits[owner.prefix] else { continue }
      let (tokens, experts) = (model.batch.rows * model.batch.columns, owner.mixture.experts)
      try judge(name, pass, [layers.count * tokens, experts], Array(layers.joined())) {
        try layers.indices.flatMap { try self.rows.routerLogits(owner, layer: $0, layers: layers.count) ?? [] }
      }
    }
  }

  /// Paths of the routers' logits and decisions.
  private(set) lazy var routerPaths = Set(
    model.layout.owners.flatMap { model.layout.gates(of: $0).flatMap { [$0 + ".output", $0 + ".choice"] } })

  /// Paths of the points that the candidate has, and of those that outputs of the trace are made of.
  private lazy var wantedPaths = Set(candidate.tensors.keys.map { HookPoint(named: $0).path } + ["lm_head.output"])

  /// Whether a value that a hook sees is the gradient of a parameter, whose rows are no tokens.
  private func isParameter(_ name: String) -> Bool { order[name].map { !$0.isPoint } ?? false }

  /// What the candidate has under a name.
  private func given(_ name: String, _ path: String, _ shape: Shape) throws -> [Double]? {
    isParameter(name) ? try rows.values(name, shape: shape.sizes) : try rows.values(name, path: path, shape) { self.inForce[$0] }
  }

  /// The candidate's values for a point, or the gradient of a parameter.
  private func theirs(_ name: String, _ path: String, _ shape: Shape) throws -> [Double]? {
    if let values = try given(name, path, shape) { return values }
    if name == "lm_head.output", model.decoder.head.softcap == nil {
      return try rows.values("logits", path: "logits", shape, choice: { _ in nil })
    }
    if name.hasSuffix(".moe_gate.output"), !name.contains("grad."), let owner = model.layout.owner(ofPath: path) {
      let gates = model.layout.gates(of: owner)
      if let layer = gates.firstIndex(of: String(path.dropLast(".output".count))) {
        return try rows.routerLogits(owner, layer: layer, layers: gates.count)
      }
    }
    return nil
  }

  // MARK: One value

  private func see(_ value: OracleHook<B>.Value, _ pass: Pass) throws {
    if rows.has(value.name) || capture != nil {
      try judge(value.name, pass, traceShape(value), value.values) { try self.theirs(value.name, value.path, value.shape) }
    }
    guard value.name == "lm_head.output", rows.has("logits") || capture != nil else { return }
    var logits = value.values
    if let cap = model.decoder.head.softcap { logits = logits.map { cap * Double.tanh($0 / cap) } }
    try judge("logits", pass, traceShape(value), logits) {
      try self.rows.values("logits", path: "logits", value.shape, choice: { _ in nil })
    }
  }

  /// Keeps a router's logits, and what rounding makes of one of them: the root mean square over the elements.
  private func seeLogits(_ value: OracleHook<B>.Value, _ pass: Pass) {
    let gate = String(value.path.dropLast(".output".count))
    var logits = gates[gate] ?? GateLogits()
    func noise(_ exact: [Double]) -> Double {
      exact.count == value.values.count ? Distance(of: value.values, from: exact).difference / Double(max(1, exact.count)).squareRoot() : 0
    }
    switch pass {
    case .localExact: logits.local = value.values
    case .localRounded: logits.localNoise = max(logits.localNoise, noise(logits.local))
    case .localFine: break
    case .wholeExact: logits.whole = value.values
    case .replayedExact: logits.replayed = value.values
    case .wholeRounded: logits.wholeNoise = max(logits.wholeNoise, noise(logits.replayed.isEmpty ? logits.whole : logits.replayed))
    }
    gates[gate] = logits
  }

  /// Whether a tensor is a loss in single precision of a run in fewer bits, whose inputs are known: then it was summed in single precision.
  func isFineLoss(_ name: String) -> Bool {
    let roundoff = Precision.float32.unitRoundoff
    guard precision.unitRoundoff > roundoff, name == "loss" || name == "aux_loss",
      let stored = candidate.tensors[name]?.precision, stored.unitRoundoff <= roundoff
    else { return false }
    if name == "loss" { return rows.has("lm_head.output") || rows.has("logits") }
    return model.layout.owners.allSatisfy { owner in
      rows.has("\(owner.prefix)router_logits") || model.layout.gates(of: owner).allSatisfy { rows.has("\($0).output") }
    }
  }

  private func traceShape(_ value: OracleHook<B>.Value) -> [Int] {
    value.path.contains(".experts.") || isParameter(value.name)
      ? value.shape.sizes : [model.batch.rows, model.batch.columns, value.shape.columns]
  }

  private func judge(
    _ name: String, _ pass: Pass, _ shape: [Int], _ values: [Double], theirs: () throws -> [Double]?
  ) throws {
    if let capture {
      shapes[name] = shape
      return try capture(name, values, theirs)
    }
    guard rows.has(name), request.isIncluded(name) else { return }
    var record = records[name] ?? Record(order: records.count)
    if record.shape.isEmpty || pass == .wholeExact {
      record.shape = shape
      record.phase = (order[name]?.phase ?? .forward).rawValue
    }
    if pass == .wholeExact, !values.allSatisfy(\.isFinite) {
      throw NonFiniteValue("tensor \(name)", at: "the float64 oracle", "has a value that is not finite")
    }
    if pass.isExact {
      ours[name] = values
      if let found = try theirs(), found.count == values.count {
        var distance = Distance(of: found, from: values, width: shape.last ?? 1)
        distance.agrees = rule?.agrees(found, values, roundoff: roundoff(of: name))
        switch pass {
        case .localExact: record.local = distance
        case .wholeExact: record.whole = distance
        case .replayedExact: record.replayed = distance
        default: break
        }
        if pass == .wholeExact || (pass == .replayedExact && (record.whole == nil || request.replaysRouting)) {
          record.metrics = TensorMetrics(
            found, values, shape: [values.count / max(1, shape.last ?? 1), shape.last ?? 1],
            roundoff: roundoff(of: name), isLogits: name == "logits")
          record.metrics.worstIndex = indexInTrace(record.metrics.worstIndex, name, shape)
          record.metrics.firstIndex = indexInTrace(record.metrics.firstIndex, name, shape)
        }
      }
    } else if let exact = ours[name], exact.count == values.count {
      let distance = Distance(of: values, from: exact, width: shape.last ?? 1)
      if pass == .localFine {
        record.fineRounding.add(distance.difference)
      } else if pass == .localRounded {
        record.localRounding.add(distance.difference)
        if distance.largestRow.isFinite { record.largestRounding = max(record.largestRounding, distance.largestRow) }
      } else {
        record.wholeRounding.add(distance.difference)
      }
    }
    records[name] = record
  }

  /// A packed row and column as the index in the trace's tensor.
  private func indexInTrace(_ index: [Int], _ name: String, _ shape: [Int]) -> [Int] {
    guard index.count == 2 else { return index }
    if name.hasSuffix("router_logits"), let owner = model.layout.owners.first(where: { name == $0.prefix + "router_logits" }) {
      let places = Array(model.layout.places(of: owner))
      guard !places.isEmpty else { return index }
      return [index[0] / places.count * model.batch.rows * model.batch.columns + places[index[0] % places.count], index[1]]
    }
    if shape.count == 3 {
      let path = name.replacing("grad.", with: "", maxReplacements: 1)
      let places = Array(model.layout.places(ofPath: path, rows: rowsOf(name)))
      guard places.indices.contains(index[0]) else { return index }
      return [places[index[0]] / model.batch.columns, places[index[0]] % model.batch.columns, index[1]]
    }
    return shape.count == 1 ? [index[0] * shape[0] + index[1]] : index
  }

  private func rowsOf(_ name: String) -> Int { name.hasPrefix("adapter.") || name.hasPrefix("base.") ? -1 : model.layout.places.count }
}
