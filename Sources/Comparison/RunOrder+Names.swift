import Tensors
import Traces

// The order of a run where no model says it.
extension RunOrder {
  /// As a trace's own list has it; what is not in that, and the tensors of a file without one, by what their names say.
  init(of reference: Candidate) {
    let listed = reference.metadata["order"] == nil ? [] : (try? TraceFile(path: reference.path).names) ?? []
    let known = Set(listed)
    let others = reference.tensors.keys.filter { !known.contains($0) }
    self.init(listed.filter { reference.tensors[$0] != nil } + others.sorted { (Self.place(of: $0), $0) < (Self.place(of: $1), $1) })
  }

  /// When a tensor of this name is formed.
  static func phase(of name: String) -> Provenance.Phase {
    if HookPoint(named: name).phase == .backward { return .backward }
    let own = name.hasPrefix("adapter.") ? name.split(separator: ".", maxSplits: 2).last ?? "" : name[...]
    return ["after.", "exp_avg.", "exp_avg_sq.", "loss_curve"].contains { own.hasPrefix($0) } ? .optimizer : .forward
  }

  /// The number of the layer that a tensor belongs to.
  static func layer(of name: String) -> Int? {
    name.firstRange(of: "layers.").flatMap { Int(name[$0.upperBound...].prefix { $0 != "." }) }
  }

  /// Roughly where a tensor stands in a run: phase, layer, module.
  private static func place(of name: String) -> Double {
    let modules = [
      "input_layernorm", "q_proj", "k_proj", "v_proj", "rotated", "o_proj.input", "o_proj", "self_attn", "residual",
      "post_attention_layernorm",
      "moe_gate", "gate_proj", "up_proj", "hidden", "down_proj", "mlp",
    ]
    let layer = layer(of: name).map { Double($0) }
    let module = Double(modules.firstIndex { name.contains($0) } ?? modules.count) / Double(modules.count + 1)
    let ends = ["embed_tokens", "model.norm", "lm_head", "router_logits", "logits", "loss", "aux_loss"]
    let end = Double(ends.lastIndex { name.hasSuffix($0) || name.contains("\($0).") } ?? 0)
    let forward = layer.map { 1 + $0 + module } ?? (name.contains("embed_tokens") ? 0 : 1e6 + end)
    switch phase(of: name) {
    case .forward: return forward
    case .backward: return 1e8 + 1e7 - forward
    case .optimizer: return 2e8 + forward
    }
  }
}
