import Layers
import Tensors

/// The name of a formula's operation, and its equation in the letters of its inputs.
extension Formula {
  /// The kind of operation.
  public var operation: OperationKind {
    switch self {
    case .embedding: .embedding
    case .norm: .norm
    case .linear(let linear): linear.operation
    case .rotary: .rotary
    case .attention: .attention
    case .same: .same
    case .sum: .residual
    case .gated: .gated
    case .softmax: .softmax
    case .choice: .choice
    case .tokens: .tokens
    case .weights: .weights
    case .combine, .sharedOutput, .parts: .combine
    case .logits, .routerLogits: .output
    case .loss, .lossCurve: .loss
    case .balance: .balance
    case .lossGradient: .lossGradient
    case .inputGradient: .linearGradient
    case .normGradient: .normGradient
    case .attentionGradient: .attentionGradient
    case .rotaryGradient: .rotaryGradient
    case .gatedGradient: .gatedGradient
    case .sharedHiddenGradient, .expertOutputGradient: .expertsGradient
    case .expertSum: .combineGradient
    case .weightsGradient: .weightsGradient
    case .routerGradient: .routerGradient
    case .matrixGradient: .matrixGradient
    case .biasGradient: .biasGradient
    case .gainGradient: .gainGradient
    case .embeddingGradient: .embeddingGradient
    case .branchGradient: .branchGradient
    case .moment, .update: .optimizer
    }
  }

  /// How an element is formed. Vectors are columns, as in the files of the layers.
  public var equation: String {
    switch self {
    case .embedding(_, let scale): scale == 1 ? "y = W[id]" : "y = γ W[id]"
    case .norm(let norm): "y = ρ x ⊙ g,  ρ = 1 / √(Σ x² / C + ε),  g = \(norm.gain)"
    case .linear(let linear): linear.equation
    case .rotary: "y_j = x_j cos − x_{j+D/2} sin,  y_{j+D/2} = x_j sin + x_{j+D/2} cos,  angle of the position"
    case .attention(let inputs): "o_i = Σ_j P_ij v_j,  P = softmax(\(inputs.form.scores))"
    case .same: "y = x"
    case .sum: "y = x + z"
    case .gated(_, _, let activation): "h = act(a) ⊙ c,  act = \(activation.text)"
    case .softmax: "p = softmax(z)"
    case .choice(_, let policy): "choice = \(policy.choiceText)"
    case .tokens: "b·T + t of each row's token"
    case .weights(_, _, .topK): "w = p / Σ_chosen p"
    case .weights(_, _, let policy): policy.weightDivisor == 1 ? "w = p" : "w = p / t"
    case .combine: "y = Σ_k w_k e_k"
    case .sharedOutput(let output): output.equation
    case .parts([]): "0, without a router"
    case .parts(let parts):
      parts.reduce(into: [String]()) { if !$0.contains($1.formula.equation) { $0.append($1.formula.equation) } }
        .joined(separator: ",  or  ")
    case .logits(_, let softcap): softcap == nil ? "y = z" : "y = c tanh(z / c)"
    case .routerLogits: "y = z, layer by layer"
    case .loss: "loss = −(1/n) Σ log softmax(logits)[label]"
    case .balance(let balance): balance.equation
    case .lossCurve: "loss + aux_loss"
    case .lossGradient(_, nil): "dz = (softmax(z) − onehot(label)) / n"
    case .lossGradient: "dz = (softmax(y) − onehot(label)) (1 − (y/c)²) / n,  y = c tanh(z / c)"
    case .inputGradient(let gradient): gradient.equation
    case .normGradient(let norm, _, let beside):
      "dx = ρ dy ⊙ g − x ρ³ ⟨dy ⊙ g, x⟩ / C\(beside == nil ? "" : " + dz"),  g = \(norm.gain)"
    case .attentionGradient(let role, let inputs, _, _): inputs.form.gradient(role)
    case .rotaryGradient: "dx_j = dy_j cos + dy_{j+D/2} sin,  dx_{j+D/2} = dy_{j+D/2} cos − dy_j sin"
    case .gatedGradient(let ofUp, _, _, _, let activation):
      (ofUp ? "dc = dh ⊙ act(a)" : "da = dh ⊙ c ⊙ act′(a)") + ",  act = \(activation.text)"
    case .sharedHiddenGradient(_, _, _, let branch): branch == nil ? "dh_k = w_k q" : "dh_k = w_k (q + A2_kᵀ (s B2_kᵀ dy))"
    case .expertOutputGradient: "de_k = w_k dy"
    case .expertSum: "dy = Σ_k dy_k"
    case .weightsGradient(let gradient): gradient.equation
    case .routerGradient(let gradient): gradient.equation
    case .matrixGradient: "dW = Σ_n dy_n x_nᵀ"
    case .biasGradient(let readings): readings.contains { $0.gate != nil } ? "db = Σ_n (Σ_k w_k) dy_n" : "db = Σ_n dy_n"
    case .gainGradient: "dw = Σ_n ρ_n dy_n ⊙ x_n"
    case .embeddingGradient(_, let scale, let head):
      "dW[id] = Σ \(scale == 1 ? "" : "γ ")dy" + (head == nil ? "" : " + Σ_n dz_n x_nᵀ")
    case .branchGradient(let isA, _, let reading):
      (isA ? "dA = Σ_n (s Bᵀ dy_n) x_nᵀ" : "dB = Σ_n s dy_n (A x_n)ᵀ") + (reading.isWeighted ? ",  dy_n = w_n dy" : "")
    case .moment(let order, _): order == 1 ? "m = (1 − β₁) g" : "v = (1 − β₂) g²"
    case .update: "w ← w (1 − lr λ) − lr/(1 − β₁) m / (√(v/(1 − β₂)) + ε)"
    }
  }
}

extension Formula.Norm {
  fileprivate var gain: String { offset == 0 ? "w" : "1 + w" }
}

extension Formula.Linear {
  fileprivate var equation: String {
    var terms = base == nil ? [] : ["base"]
    if weight != nil { terms.append("W x") }
    if bias != nil { terms.append("b") }
    if !branches.isEmpty { terms.append("s B A x") }
    return "y = " + terms.joined(separator: " + ")
  }
}

extension Formula.SharedOutput {
  fileprivate var equation: String {
    "y = W2 v" + (bias == nil ? "" : " + (Σ_k w_k) b2") + (branches.isEmpty ? "" : " + s Σ_k B2_k (w_k A2_k h_k)")
  }
}

extension Formula.InputGradient {
  fileprivate var equation: String {
    let hasMatrix = readers.contains { $0.weight != nil }
    let hasBranch = readers.contains { !$0.branches.isEmpty }
    let term = [hasMatrix ? "Wᵀ dy" : nil, hasBranch ? "Aᵀ (s Bᵀ dy)" : nil].compactMap { $0 }.joined(separator: " + ")
    return readers.count == 1 ? "dx = \(term)" : "dx = Σ (\(term)) over its readers"
  }
}

extension Formula.WeightsGradient {
  fileprivate var equation: String {
    guard q != nil else { return "dw_k = ⟨dy, e_k⟩" }
    return "dw_k = " + (branches.isEmpty ? "⟨q, h_k⟩" : "⟨q + A2_kᵀ (s B2_kᵀ dy), h_k⟩") + (bias == nil ? "" : " + ⟨dy, b2⟩")
  }
}

extension Formula.RouterGradient {
  fileprivate var equation: String {
    let main =
      switch policy {
      case .topK: "w_j (dw_j − Σ_i w_i dw_i)"
      case .topP: policy.weightDivisor == 1 ? "p_j (dw_j − Σ_i p_i dw_i)" : "p_j (dw_j − Σ_i p_i dw_i) / t"
      }
    return "dz_j = \(main)" + (balance.coefficient == 0 ? "" : " + p_j (balance_j − Σ_i p_i balance_i)")
  }
}

extension Formula.Balance {
  fileprivate var equation: String {
    switch form {
    case .pooledTopK: "coefficient · E · Σ_i F_i P_i,  over all layers"
    case .perLayerArgmax: "mean over the layers of coefficient · E · Σ_i F_i P_i,  F of first choices"
    }
  }
}

extension RoutingPolicy {
  fileprivate var choiceText: String {
    switch self {
    case .topK(let k): "the experts of the \(k) largest p"
    case .topP(let threshold, _): "experts by falling p\(weightDivisor == 1 ? "" : " / t") until their sum exceeds \(threshold)"
    }
  }
}

extension Activation {
  fileprivate var text: String {
    switch self {
    case .silu: "a σ(a)"
    case .geluTanh: "½ a (1 + tanh(√(2/π) (a + 0.044715 a³)))"
    }
  }
}

extension AttentionForm {
  fileprivate var scores: String { softcap == nil ? "σ q·k" : "c tanh(σ q·k / c)" }

  fileprivate func gradient(_ role: Formula.AttentionRole) -> String {
    let scores = ",  dS_ij = P_ij (do_i·v_j − do_i·o_i)" + (softcap == nil ? "" : " (1 − (S_ij/c)²)")
    return switch role {
    case .q: "dq_i = σ Σ_j dS_ij k_j" + scores
    case .k: "dk_j = σ Σ_i dS_ij q_i" + scores
    case .v: "dv_j = Σ_i P_ij do_i"
    }
  }
}
