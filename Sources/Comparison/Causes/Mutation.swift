import Tensors

/// A mistake that an operation may have: what the oracle computes instead while a cause is looked for.
enum Mutation: Equatable, Sendable {
  // Rotary embedding
  case rotaryPairs, rotaryOffset(Int), rotaryShifts([Int]), rotaryBase(Double), rotaryInverse, rotaryMissing
  // Attention
  case attention(AttentionMistake)
  // Norms
  case normOffset, normEpsilon(Double), normEpsilonOutside, normCentered, normGainMissing, normBackwardShort, normBackwardSum
  // Gated units
  case activation(GateMistake)
  // Routing
  case weightsNotNormalized, weightsUniform, weightsOfChosenLogitsSquared, weightsMissing, weightsReversed, balanceMissing,
    routerFullSoftmax, routerSumMissing
  case routerWeightGradientMissing
  // Experts
  case expertsShifted(Int), biasMissing
  // Weights
  case squareTransposed, weightsRounded(Precision16)
  // Losses
  case oneHotMissing
  // Optimizer
  case adamW(AdamWMistake)

  /// Precisions that weights may have been rounded to.
  enum Precision16: Sendable { case bfloat16, float16 }
}

/// What attention may do wrong.
struct AttentionMistake: Equatable, Sendable {
  /// What σ is multiplied with.
  var scale = 1.0
  /// Rows ahead that a row sees beside itself and earlier ones: 1 sees the next one, −1 not even itself.
  var ahead = 0
  /// What is added to the window.
  var window = 0
  /// Whether the window is not looked at.
  var ignoresWindow = false
  /// Whether every row sees all of its sequence.
  var isUnmasked = false
  /// Whether query head h reads the keys, the values of group h mod G, or hands its gradients to it.
  var tilesKeys = false, tilesValues = false, tilesGradients = false
  /// Whether the soft cap is left out.
  var ignoresSoftcap = false
  /// Whether backward leaves out the row sum: dS = P ⊙ dP.
  var omitsRowSum = false
  /// Whether backward leaves out σ.
  var omitsScaleInBackward = false
}

/// What a gated unit may do wrong.
enum GateMistake: Equatable, Sendable {
  case geluTanh, geluExact, geluQuick, silu, relu, sigmoid, identity
  /// a ⊙ act(c) instead of act(a) ⊙ c.
  case exchanged
  /// Backward with σ(a) for act′(a), with act(a), and without c.
  case slopeIsSigmoid, slopeIsActivation, slopeIsOne, slopeOfRelu, slopeOfSilu, slopeOfGeluTanh, slopeOfGeluExact, slopeWithoutUp
  /// Backward with dc = dh, or with dc = dh ⊙ a.
  case upWithoutActivation, upWithGate
}

/// What AdamW may do wrong.
enum AdamWMistake: Equatable, Sendable {
  case epsilonInsideRoot, epsilonBeforeCorrection, noBiasCorrection, correctsFirstOnly, correctsSecondOnly, stepLater(Int), coupledDecay,
    decayAfter, noDecay, beta1(Double), beta2(Double)
  case betasSwapped, noMoments, valuesRounded, epsilon(Double), sgd, decayWithoutRate, ascent, rateTimes(Double)
}
