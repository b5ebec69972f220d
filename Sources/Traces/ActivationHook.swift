import Layers
import Tensors

/// Hands on the activations that are asked for, and with a backward pass their gradients, as the run meets them.
///
/// A value of every token is (B,T,width), zero at padding and in the rows of others, under the path of its point, `grad.` in front of
/// a gradient's. The rows of expert e are (rows,width), and `model.layers.N.mlp.experts.E.tokens` (rows) says which
/// tokens they belong to, as row b · T + column t of the batch; `moe_gate.choice` (B,T,S) lists each token's experts, −1 for none.
final class ActivationHook<B: Backend>: Hook {
  /// The packed logits of every router, by the path of their point: a trace always has them.
  private(set) var gateLogits: [String: [B.Scalar]] = [:]
  /// The head whose logits are taken where they pass, and where they go.
  var head: (layer: LanguageModelHead<B>, append: (_ logits: Tensor<B>) throws -> Void)?
  private let gates: Set<String>
  private let layout: TraceLayout<B>
  private let request: TraceRequest
  private let ledger: TraceLedger<B.Scalar>
  private let backend: B

  init(_ layout: TraceLayout<B>, _ request: TraceRequest, _ ledger: TraceLedger<B.Scalar>, on backend: B) {
    (self.layout, self.request, self.ledger, self.backend) = (layout, request, ledger, backend)
    gates = Set(layout.owners.flatMap { owner in layout.gates(of: owner).map { $0 + ".output" } })
  }

  private var headPath: String? { head.map { $0.layer.path + ".output" } }

  private func isWanted(_ path: String) -> Bool { request.activations?(path) ?? false }

  func listens(to path: String) -> Bool {
    if gates.contains(path) || isWanted(path) || path == headPath { return true }
    // The tokens of experts may be asked for without the choice that they follow from.
    return request.activations != nil && path.hasSuffix(".moe_gate.choice")
  }

  func visit(_ value: inout Tensor<B>, at point: HookPoint) throws {
    let isForward = point.phase == .forward
    if isForward, point.path == headPath, let head {
      var logits = backend.copy(value)
      if let softcap = head.layer.softcap { backend.softcap(softcap, &logits) }
      try head.append(logits)
    }
    let isWritten = isWanted(point.path) && (isForward || request.backward)
    guard isWritten || isForward && gates.contains(point.path) else { return }
    let values = try backend.download(value)
    if isForward, gates.contains(point.path) { gateLogits[point.path] = values }
    guard isWritten else { return }
    let (batch, width) = (layout.batch, value.shape.columns)
    let section = isForward ? TraceLedger<B.Scalar>.Section.forward : .backward
    ledger.hasActivations = true
    if point.path.contains(".experts.") {
      try ledger.append(point.description, [value.shape.rows, width], values, section)
    } else {
      let places = layout.places(ofPath: point.path, rows: value.shape.rows)
      try ledger.append(
        point.description, [batch.rows, batch.columns, width], batch.unpacked(values, width: width, places), section)
    }
  }

  /// A router's decision, and which tokens each expert's rows are.
  func visit(choice: inout Indices<B>, at point: HookPoint) throws {
    guard let owner = layout.owner(ofPath: point.path) else { return }
    let choice = try backend.download(choice)
    let (batch, places) = (layout.batch, Array(layout.places(of: owner)))
    let slots = owner.mixture.policy.slots(of: owner.mixture.experts)
    if isWanted(point.path) {
      ledger.hasActivations = true
      let values = batch.unpacked(choice.map { B.Scalar($0) }, width: slots, places)
      try ledger.append(point.path, [batch.rows, batch.columns, slots], values, .forward)
    }
    let module = point.path.dropLast(".moe_gate.choice".count)
    for e in 0..<owner.mixture.experts where isWanted("\(module).experts.\(e).tokens") {
      ledger.hasActivations = true
      let tokens = places.indices.filter { choice[$0 * slots..<($0 + 1) * slots].contains(Int32(e)) }
      try ledger.append("\(module).experts.\(e).tokens", [tokens.count], tokens.map { B.Scalar(places[$0]) }, .forward)
    }
  }
}
