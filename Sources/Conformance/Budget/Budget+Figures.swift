extension Budget {
  /// The kinds of tensors that the table of figures tells apart.
  public enum Kind: String, Sendable, CaseIterable {
    /// Norms, linear layers, attention, the router's logits and weights: what is formed by sums over a row.
    case product
    /// What experts form, and what is summed over it: `hidden`, `down_proj`, the output of a feed-forward layer or block.
    case expert
    /// Logits of the language model's head.
    case logits
    /// The cross-entropy.
    case loss
    /// The balance loss of the routers.
    case balanceLoss
    /// The gradient of an activation.
    case activationGradient
    /// The gradient of a parameter.
    case parameterGradient
    /// A parameter after optimizer steps, and losses after them.
    case updated
    /// Numbers of experts and tokens: right or wrong.
    case decision

    /// The kind of a tensor with a trace's name: `logits`, `grad.model.layers.0.mlp.output`, `adapter.1.after.…`
    ///
    /// A name that no trace has is a `product`, under `grad.` the gradient of a parameter.
    public init(ofTensor name: String) {
      var parts = name.split(separator: ".")[...]
      if parts.count > 2, parts.first == "adapter", Int(parts[parts.startIndex + 1]) != nil { parts = parts.dropFirst(2) }
      let isActivation = ["output", "input", "hidden"].contains(parts.last)
      if parts.count > 1, parts.first == "grad" {
        self = isActivation ? .activationGradient : .parameterGradient
        return
      }
      if parts.count > 1, ["after", "exp_avg", "exp_avg_sq"].contains(parts.first) {
        self = .updated
        return
      }
      switch parts.last {
      case "logits": self = .logits
      case "loss": self = .loss
      case "aux_loss": self = .balanceLoss
      case "loss_curve": self = .updated
      case "choice", "tokens": self = .decision
      default:
        let module = isActivation && parts.last != "hidden" ? parts.dropLast() : parts
        self = Self.ofModule(module)
      }
    }

    private static func ofModule(_ module: ArraySlice<Substring>) -> Kind {
      if module == ["lm_head"] { return .logits }
      // experts.E.{gate,up}_proj reads the block's normed input, as the base products do; what follows reads its product
      if let last = module.last, ["hidden", "down_proj", "mlp"].contains(last) { return .expert }
      if module.count == 3, module.starts(with: ["model", "layers"]) { return .expert }  // a block's output is x + mlp
      return .product
    }
  }

  /// The largest ‖d‖₂ / ‖reference‖₂ that a right candidate in a precision was seen to have in a tensor of a kind.
  ///
  /// Measured: forward, backward and AdamW of eight tiny models in PyTorch, 448 clean runs without a flipped decision, each tensor
  /// against the float64 oracle's, so that what went before a tensor is in its figure:
  ///
  ///     largest of a kind        float32    bfloat16   float16
  ///     product                  1.3e-6     4e-2       4.4e-3
  ///     expert                   2.4e-6     7e-2       9e-3
  ///     logits                   1.1e-6     3.2e-2     4.4e-3
  ///     loss                     2e-7       4e-3       7e-4
  ///     balance loss             2e-7       2e-3       7e-4
  ///     activation's gradient    1.1e-5     0.25       3.6e-2
  ///     parameter's gradient     1.7e-5     0.38       6e-2
  ///     after AdamW              1.2e-5     –          –
  ///
  /// In float64 a figure is float32's by the ratio of the unit roundoffs, 2⁻²⁹. What AdamW wrote was measured in float32 alone; it
  /// grows with the error of the gradients that it divides, hence by their ratio in the other precisions. A decision has no error.
  public static func figure(_ kind: Kind, in precision: Precision) -> Double {
    let (float32, bfloat16, float16) =
      switch kind {
      case .product: (1.3e-6, 4e-2, 4.4e-3)
      case .expert: (2.4e-6, 7e-2, 9e-3)
      case .logits: (1.1e-6, 3.2e-2, 4.4e-3)
      case .loss: (2e-7, 4e-3, 7e-4)
      case .balanceLoss: (2e-7, 2e-3, 7e-4)
      case .activationGradient: (1.1e-5, 0.25, 3.6e-2)
      case .parameterGradient: (1.7e-5, 0.38, 6e-2)
      case .updated: (1.2e-5, 1.2e-5 * 0.38 / 1.7e-5, 1.2e-5 * 6e-2 / 1.7e-5)
      case .decision: (0, 0, 0)
      }
    return switch precision {
    case .float64: float32 * Precision.float64.unitRoundoff / Precision.float32.unitRoundoff
    case .float32: float32
    case .float16: float16
    case .bfloat16: bfloat16
    }
  }

  /// The figure of a tensor with a trace's name.
  public static func figure(of name: String, in precision: Precision) -> Double { figure(Kind(ofTensor: name), in: precision) }
}
