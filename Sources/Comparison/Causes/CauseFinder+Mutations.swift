import Conformance
import Decoders
import Platform
import Tensors

// The ideas that are operations with a mistake.
extension CauseFinder {
  /// A mutation, its tag and its words.
  typealias Idea = (mutation: Mutation, name: String, text: String)

  func mutations() throws {
    if target.phase == "optimizer" {
      for idea in optimizer { try keepRule(Trial(mutation: idea.mutation), idea.name, idea.text) }
      return
    }
    for idea in ideas {
      guard let values = try values(Trial(mutation: idea.mutation)), values != ours else { continue }
      keep(values, idea.name, rank: 0, idea.text)
    }
  }

  /// What may be wrong at the target; the mistakes of other places leave its value as it is.
  var ideas: [Idea] {
    var ideas: [Idea] = []
    let (name, isBackward) = (target.name, target.phase == "backward")
    let isWhole = ["logits", "loss", "aux_loss", "router_logits"].contains { name.hasSuffix($0) }
    if name.contains("self_attn") || isWhole || isBackward { ideas += rotary + attention }
    if name.contains("norm") || isWhole || isBackward { ideas += norms }
    if name.contains("mlp") || isWhole || isBackward { ideas += gates + routing + experts }
    if target.phase == "backward" {
      ideas.append((.oneHotMissing, "missing-term", "the cross-entropy's gradient lacks the label's 1: it is softmax(z) / n alone"))
    }
    ideas += [
      (.squareTransposed, "transposed", "a square weight is read transposed"),
      (.weightsRounded(.bfloat16), "rounded-weights", "the frozen weights are rounded to bfloat16"),
      (.weightsRounded(.float16), "rounded-weights", "the frozen weights are rounded to float16"),
    ]
    return ideas
  }

  private var rotary: [Idea] {
    var ideas: [Idea] = [
      (.rotaryPairs, "rotary-pairs", "the rotary embedding pairs channel 2j with 2j + 1 instead of j with j + D/2"),
      (.rotaryInverse, "rotary-inverse", "the rotary embedding turns the other way round"),
      (.rotaryMissing, "missing-term", "the rotary embedding is left out"),
    ]
    for by in [1, -1, 2, -2] {
      ideas.append((.rotaryOffset(by), "rotary-offset", "positions of the rotary embedding are off by \(by)"))
    }
    let starts = model.packed.order.flatMap { n in model.batch.realColumns[n].map { _ in -model.batch.realColumns[n].lowerBound } }
    if starts.contains(where: { $0 != 0 }) {
      ideas.append(
        (.rotaryShifts(starts), "rotary-offset", "positions of the rotary embedding are counted from the first token behind the padding"))
    }
    let base = model.decoder.configuration.rotary.base
    for other in [10_000.0, 500_000, 1_000_000, 100_000, base * base, base.squareRoot(), 1_000, 5_000_000, 10_000_000] where other != base {
      ideas.append((.rotaryBase(other), "rotary-base", "the rotary embedding's base is \(plain(other)) instead of \(plain(base))"))
    }
    return ideas
  }

  private var attention: [Idea] {
    let c = model.decoder.configuration
    let d = Double(c.attention.headWidth)
    var ideas: [Idea] = []
    func add(_ mistake: AttentionMistake, _ name: String, _ text: String) { ideas.append((.attention(mistake), name, text)) }
    for (factor, text) in [
      (d.squareRoot(), "scores are not divided by √D"), (1 / d.squareRoot(), "scores are divided by √D twice"),
      ((d / Double(c.channels)).squareRoot(), "scores are divided by √C instead of √D"), (2, "scores are doubled"),
      (0.5, "scores are halved"),
    ] { add(AttentionMistake(scale: factor), "scale", text) }
    add(
      AttentionMistake(tilesKeys: true, tilesValues: true), "key-heads-order",
      "query head h reads key and value head h mod G instead of h / (H/G)")
    add(AttentionMistake(tilesKeys: true), "key-heads-order", "query head h reads key head h mod G instead of h / (H/G)")
    add(AttentionMistake(tilesValues: true), "key-heads-order", "query head h reads value head h mod G instead of h / (H/G)")
    add(AttentionMistake(ahead: 1), "mask-off-by-one", "the causal mask lets a token see the next one")
    add(AttentionMistake(ahead: -1), "mask-off-by-one", "the causal mask hides a token from itself")
    add(AttentionMistake(isUnmasked: true), "mask-off-by-one", "there is no causal mask")
    add(AttentionMistake(window: 1), "window-off-by-one", "the window is one token wider")
    add(AttentionMistake(window: -1), "window-off-by-one", "the window is one token narrower")
    add(AttentionMistake(ignoresWindow: true), "window-off-by-one", "the window is not looked at")
    add(AttentionMistake(ignoresSoftcap: true), "missing-term", "the scores' soft cap is left out")
    if target.phase == "backward" {
      add(
        AttentionMistake(omitsRowSum: true), "missing-term",
        "the softmax's gradient lacks the row sum: dS = P ⊙ dP instead of P ⊙ (dP − Σ P dP)")
      add(
        AttentionMistake(tilesGradients: true), "key-heads-order",
        "query head h hands its gradients to key head h mod G instead of h / (H/G)")
      add(AttentionMistake(omitsScaleInBackward: true), "scale", "the scores' scale is left out of the gradient")
    }
    return ideas
  }

  private var norms: [Idea] {
    let epsilon = model.decoder.norm.epsilon
    var ideas: [Idea] = [
      (
        .normOffset, "offset-norm",
        model.decoder.norm.offset == 0 ? "the norm multiplies with 1 + w instead of w" : "the norm multiplies with w instead of 1 + w"
      ),
      (.normEpsilonOutside, "missing-term", "the norm's ε is added outside the root"),
      (.normCentered, "missing-term", "the norm subtracts the mean, as a layer norm does"),
      (.normGainMissing, "missing-term", "the norm's weight is left out"),
    ]
    for other in [0, 1e-5, 1e-6, 1e-8, 1e-12] where other != epsilon {
      ideas.append(
        (.normEpsilon(other), "missing-term", other == 0 ? "the norm's ε is missing" : "the norm's ε is \(other) instead of \(epsilon)"))
    }
    if target.phase == "backward" {
      ideas.append(
        (.normBackwardSum, "missing-term", "the norm's gradient has the sum where the mean belongs: its second term is not divided by C"))
      ideas.append((.normBackwardShort, "missing-term", "the norm's gradient lacks its second term, − x ρ³ ⟨dy ⊙ g, x⟩ / C"))
    }
    return ideas
  }

  private var gates: [Idea] {
    let own = model.decoder.configuration.feedForward.activation
    var ideas: [Idea] = []
    func add(_ mistake: GateMistake, _ text: String, _ name: String = "wrong-activation") {
      ideas.append((.activation(mistake), name, text))
    }
    for (mistake, name) in [
      (GateMistake.silu, "silu"), (.geluTanh, "gelu in the tanh form"), (.geluExact, "gelu in the erf form"), (.geluQuick, "x σ(1.702 x)"),
      (.relu, "relu"), (.sigmoid, "the sigmoid alone"),
      (.identity, "no nonlinearity"),
    ] { add(mistake, "the activation is \(name) instead of \(own.rawValue)") }
    add(.exchanged, "gate and up are exchanged: a ⊙ act(c)", "swapped")
    if target.phase == "backward" {
      add(.slopeIsSigmoid, "the activation's derivative is σ(a) alone: its second term is missing", "missing-term")
      add(.slopeIsActivation, "the activation's derivative is the activation itself")
      for (mistake, name) in [
        (GateMistake.slopeOfRelu, "relu"), (.slopeOfSilu, "silu"), (.slopeOfGeluTanh, "gelu in the tanh form"),
        (.slopeOfGeluExact, "gelu in the erf form"),
      ] { add(mistake, "the activation's derivative is that of \(name)") }
      add(.slopeWithoutUp, "the gradient of the gate lacks the factor of up", "missing-term")
      add(.upWithoutActivation, "the gradient of up lacks the activation of the gate", "missing-term")
      add(.upWithGate, "the gradient of up has the gate itself for its activation")
      add(.slopeIsOne, "the activation's derivative is left out", "missing-term")
    }
    return ideas
  }

  private var routing: [Idea] {
    [
      (
        .weightsNotNormalized, "unnormalized",
        "the routing weights are p itself: they are not divided by their sum, or are where the policy does not"
      ),
      (.weightsUniform, "unnormalized", "the routing weights are all the same"),
      (.weightsMissing, "unnormalized", "the routing weights are left out"),
      (
        .weightsOfChosenLogitsSquared, "topk-before-softmax",
        "the routing weights are a softmax of probabilities that are softmaxed already"
      ),
      (.weightsReversed, "swapped", "the routing weights go to the experts in the reverse order"),
      (.routerSumMissing, "missing-term", "the router's softmax lacks the sum in its gradient: dz = p ⊙ dp instead of p ⊙ (dp − ⟨dp, p⟩)"),
      (
        .routerFullSoftmax, "missing-term",
        "the router's gradient is that of the full softmax: the normalization of the weights is left out"
      ),
    ]
  }

  private var experts: [Idea] {
    let counts = model.layout.owners.map(\.mixture.experts)
    return (1..<max(2, counts.max() ?? 0)).map { by in
      (.expertsShifted(by), "experts-swapped", "expert e uses the branch of expert e + \(by)")
    }
  }

  private var optimizer: [Idea] {
    var ideas: [Idea] = []
    func add(_ mistake: AdamWMistake, _ name: String, _ text: String) { ideas.append((.adamW(mistake), name, text)) }
    add(.epsilonInsideRoot, "adamw-eps", "ε is added inside the root")
    add(.epsilonBeforeCorrection, "adamw-eps", "ε is added before the bias correction")
    for other in [1e-5, 1e-6, 1e-7, 1e-10, 1e-3, 0] { add(.epsilon(other), "adamw-eps", "ε is \(other) instead of 1e-08") }
    add(.noBiasCorrection, "adamw-bias-correction", "the bias correction is missing")
    add(.correctsFirstOnly, "adamw-bias-correction", "only the first moment's bias is corrected")
    add(.correctsSecondOnly, "adamw-bias-correction", "only the second moment's bias is corrected")
    for by in [1, -1] { add(.stepLater(by), "adamw-bias-correction", "steps are counted from \(1 + by) instead of 1") }
    add(.betasSwapped, "adamw-beta", "β₁ and β₂ are exchanged")
    add(.noMoments, "adamw-beta", "both β are 0: the step is the gradient's sign")
    add(.valuesRounded, "rounded-weights", "the values are rounded to bfloat16 behind the step")
    add(.coupledDecay, "adamw-l2", "weight decay is added to the gradient (L2) instead of taken off the value")
    add(.decayAfter, "adamw-order", "weight decay comes behind the step")
    add(.noDecay, "adamw-order", "weight decay is missing")
    add(.decayWithoutRate, "adamw-order", "weight decay is not multiplied with the learning rate")
    for other in [0.95, 0.8, 0.5, 0, 0.99, 0.999] { add(.beta1(other), "adamw-beta", "β₁ is \(other) instead of 0.9") }
    for other in [0.99, 0.95, 0.98, 0.9, 0.9999] { add(.beta2(other), "adamw-beta", "β₂ is \(other) instead of 0.999") }
    add(.sgd, "adamw-beta", "the step is that of gradient descent without moments")
    add(.ascent, "scale", "the step goes up instead of down")
    for factor in [2, 0.5, 4, 0.25, 10, 0.1, 16] {
      add(.rateTimes(factor), "scale", "the learning rate is \(plain(factor)) times as large")
    }
    return ideas
  }

  var model: OracleModel<Exact> { comparison.model }
}

/// A number as people write it: without a fraction where it has none.
func plain(_ x: Double) -> String { x == x.rounded() && abs(x) < 1e15 ? "\(Int(x))" : "\(x)" }
