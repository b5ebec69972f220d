/// A mistake that a backend could make, and the operation whose cases must find it.
enum Fault: String, CaseIterable, Sendable {
  case uploadsThroughFloat, copyIgnoresRanges, writesSharedStorage, writesOneTooMany, viewsReadAsContiguous, computesInFloat
  case zeroTimesNaNIsNaN, columnSumsOverwrite, normalTooWide
  case gemmReadsCWithBetaZero, gemmIgnoresBeta
  case rmsNormWithoutEpsilon, rmsNormHidesNaN, inverseRMSIsAColumn, rmsNormBackwardWithoutMean, rmsNormBackwardOverwrites
  case ropePairsNeighbours, ropeIgnoresInverse
  case attentionWithoutScale, attentionAcrossSequences, attentionReversesRows, attentionHidesNaN, headsInterleaved
  case attentionBackwardWithoutScale, earlierRowsComeLast
  case swiGLUSwapped, swiGLUSlopeIsSigmoid, embeddingGradientKeepsLast, crossEntropyIgnoresScale
  case otherBitsEachTime, dropoutThresholdCutOff, dropoutByRowNumber, dropoutUnscaled, oneKeyForAllExperts
  case tiesToTheHigherIndex, weightsNotRenormalised, routerIgnoresBalance, routerWithoutMean
  case combineIgnoresWeights, blocksOfAnotherExpert, combineBlocksLeavesGarbage, groupedGemmSwapsExperts, groupedOuterIgnoresAlpha
  case adamWWithoutBiasCorrection, adamWDecaysTheGradient

  /// The operations whose cases have to fail, one by one.
  var operations: [String] {
    switch self {
    case .uploadsThroughFloat: ["upload", "gemm", "rmsNorm"]
    case .copyIgnoresRanges: ["copyInto"]
    case .writesSharedStorage: ["add", "gemm", "rope", "sharing"]
    case .writesOneTooMany: ["add", "gemm", "adamW"]
    case .viewsReadAsContiguous: ["upload", "gemm", "attention", "dispatch"]
    case .computesInFloat: ["gemm", "rmsNorm", "attention", "adamW"]
    case .zeroTimesNaNIsNaN, .rmsNormHidesNaN, .attentionHidesNaN: ["NaN"]
    case .columnSumsOverwrite: ["addColumnSums"]
    case .normalTooWide: ["random"]
    case .gemmReadsCWithBetaZero, .gemmIgnoresBeta: ["gemm"]
    case .rmsNormWithoutEpsilon, .inverseRMSIsAColumn: ["rmsNorm"]
    case .rmsNormBackwardWithoutMean: ["rmsNormBackward", "gradient"]
    case .rmsNormBackwardOverwrites: ["rmsNormBackward"]
    case .ropePairsNeighbours, .ropeIgnoresInverse: ["rope", "gradient"]
    case .attentionWithoutScale, .attentionAcrossSequences, .attentionReversesRows, .headsInterleaved, .earlierRowsComeLast: ["attention"]
    case .attentionBackwardWithoutScale: ["attentionBackward", "gradient"]
    case .swiGLUSwapped: ["swiGLU"]
    case .swiGLUSlopeIsSigmoid: ["swiGLUBackward", "gradient"]
    case .embeddingGradientKeepsLast: ["addEmbeddingGradient", "gradient"]
    case .crossEntropyIgnoresScale: ["crossEntropy", "gradient"]
    case .otherBitsEachTime: ["repetition"]
    case .dropoutThresholdCutOff: ["dropout"]
    case .dropoutByRowNumber, .dropoutUnscaled: ["dropout", "gradient"]
    case .oneKeyForAllExperts: ["routedDropout"]
    case .tiesToTheHigherIndex: ["topK"]
    case .weightsNotRenormalised: ["route"]
    case .routerIgnoresBalance, .routerWithoutMean: ["routerBackward", "gradient"]
    case .combineIgnoresWeights: ["combine"]
    case .blocksOfAnotherExpert: ["dispatchBlocks"]
    case .combineBlocksLeavesGarbage: ["combineBlocks"]
    case .groupedGemmSwapsExperts: ["groupedGemm", "gradient"]
    case .groupedOuterIgnoresAlpha: ["groupedOuter", "gradient"]
    case .adamWWithoutBiasCorrection, .adamWDecaysTheGradient: ["adamW"]
    }
  }
}
