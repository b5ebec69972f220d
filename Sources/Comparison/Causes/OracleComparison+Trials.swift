import Conformance
import Layers
import Tensors
import Traces

// Local runs in which something is done otherwise, for whoever looks for causes.
extension OracleComparison {
  /// Our value of a tensor on the candidate's inputs under a trial, and the candidate's.
  func localValues(_ name: String, _ trial: CauseFinder<Exact>.Trial) throws -> (ours: [Double], found: [Double]?)? {
    let all = try localRun(trial) { $0 == name }
    return all[name]
  }

  /// Our values on the candidate's inputs of every tensor that is asked for.
  ///
  /// - Parameter paths: points that are seen although the candidate has nothing there.
  func localRun(
    _ trial: CauseFinder<Exact>.Trial, seeing paths: Set<String> = [], _ isWanted: @escaping (String) -> Bool
  ) throws -> [String: (ours: [Double], found: [Double]?)] {
    seenPaths = paths
    defer { seenPaths = [] }
    var all: [String: (ours: [Double], found: [Double]?)] = [:]
    capture = { name, values, theirs in
      guard isWanted(name) else { return }
      let found = try theirs()
      all[name] = (values, found?.count == values.count ? found : nil)
    }
    self.trial = trial
    model.backend.mutation = trial.mutation
    defer {
      capture = nil
      self.trial = nil
      model.backend.mutation = nil
    }
    try pass(.localExact, precision: trial.precision, seed: 77)
    return all
  }

  /// A name without the number of its expert: what all experts' rows of one kind are called.
  static func group(_ name: String) -> String {
    guard let range = name.firstRange(of: ".experts.") else { return name }
    return name[..<range.upperBound] + "*" + name[range.upperBound...].drop { $0 != "." }
  }

  /// The gradients that were formed shortly before a target, by which its own may come: experts' together.
  func sources(of target: TensorJudgement) -> [String] {
    guard let own = records[target.name]?.order else { return [] }
    let layer = RunOrder.layer(of: target.name)
    let before = records.filter {
      $0.value.phase == "backward" && $0.value.order < own && !$0.key.contains("lora_") && !$0.key.hasSuffix(".weight")
    }
    .filter { RunOrder.layer(of: $0.key) == layer || RunOrder.layer(of: $0.key) == layer.map { $0 + 1 } || layer == nil }
    .sorted { $0.value.order > $1.value.order }
    var groups: [String] = []
    for (name, _) in before where !groups.contains(Self.group(name)) { groups.append(Self.group(name)) }
    return Array(groups.prefix(16))
  }

  /// What a sum over the experts is made of.
  func experts(of target: TensorJudgement) -> [String] {
    guard target.name.hasSuffix(".mlp.output") || target.name.hasSuffix(".mlp.down_proj.input"), target.phase == "forward" else {
      return []
    }
    let module = target.name.firstRange(of: ".mlp.").map { target.name[..<$0.upperBound] } ?? ""
    return records.keys.filter { $0.hasPrefix("\(module)experts.") && ($0.hasSuffix(".down_proj.output") || $0.hasSuffix(".hidden")) }
      .sorted()
  }

  /// The candidate's values of the same size that were formed before a target in its layer or the one beside it.
  func inputs(of target: TensorJudgement) throws -> [(name: String, values: [Double])] {
    try others(like: target).filter { (records[$0.name]?.order ?? .max) < (records[target.name]?.order ?? 0) }
  }

  /// The values of all tensors of the same phase and width in the same layer and its neighbors, the candidate's where they are right.
  func others(like target: TensorJudgement) throws -> [(name: String, values: [Double])] {
    if let cache = othersCache, cache.name == target.name { return cache.values }
    let layer = RunOrder.layer(of: target.name)
    let names = records.filter { name, record in
      record.phase == target.phase && record.shape.count == target.shape.count && record.shape.last == target.shape.last
        && !(order[name].map { $0.operation == .same && $0.inputs.contains { $0.name == target.name } } ?? false)
        && (layer == nil || RunOrder.layer(of: name) == nil || abs((RunOrder.layer(of: name) ?? 0) - (layer ?? 0)) <= 1)
    }.map(\.key)
    let wanted = Set(names)
    let all = try localRun(CauseFinder<Exact>.Trial()) { wanted.contains($0) }
    // Ours on the candidate's inputs: what each of them should be.
    let values = names.sorted { (records[$0]?.order ?? 0) < (records[$1]?.order ?? 0) }.compactMap { name in
      all[name].map { (name: name, values: $0.ours) }
    }
    othersCache = (target.name, values)
    return values
  }

  /// Whether a packed row's neighbor is another sequence's.
  func isBorder(_ row: Int, _ by: Int, _ target: TensorJudgement) -> Bool {
    guard !target.name.contains(".experts."), target.shape.count == 3 else { return false }
    let offsets = model.packed.plan.offsets
    return by > 0 ? offsets.contains(row) : offsets.contains(row + 1)
  }

  /// The candidate's logits of a router, ours where it has none.
  func theirLogits(_ gate: String) -> [Double]? {
    guard let own = gates[gate]?.local, !own.isEmpty, let owner = model.layout.owner(ofPath: gate + ".output") else { return nil }
    let width = owner.mixture.experts
    let theirs = try? rows.values(gate + ".output", path: gate + ".output", Shape(own.count / width, width)) { _ in nil }
    if let theirs { return theirs }
    let gates = model.layout.gates(of: owner)
    if let layer = gates.firstIndex(of: gate), let values = try? rows.routerLogits(owner, layer: layer, layers: gates.count) {
      return values
    }
    return own
  }

  static func softmax(_ z: [Double], _ width: Int) -> [Double] {
    stride(from: 0, to: z.count, by: width).flatMap { RoutingFlip.probabilities(Array(z[$0..<$0 + width])) }
  }
}
