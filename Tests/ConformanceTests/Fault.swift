/// A mistake that a backend could make, and the operations whose cases must find it.
enum Fault: String, CaseIterable, Sendable {
  case uploadsThroughFloat, copyIgnoresRanges, copyIgnoresIndices, fillMultiplies, writesSharedStorage, writesOneTooMany
  case viewsReadAsContiguous, indicesIgnoreOffset, computesInFloat, downloadWaitsForEach, countsTwice
  case zeroTimesNaNIsZero, addIgnoresRows, columnSumsOverwrite, normalTooWide
  case gemmReadsCWithBetaZero, gemmIgnoresBeta
  case rmsNormWithoutEpsilon, rmsNormHidesNaN, rhoIsAColumn, offsetForgotten, rmsNormBackwardWithoutMean, rmsNormBackwardOverwrites
  case ropePairsNeighbours, ropeIgnoresInverse
  case attentionWithoutScale, attentionAcrossSequences, attentionReversesRows, attentionHidesNaN, headsInterleaved, windowTooWide
  case attentionWithoutCap, attentionBackwardWithoutScale, earlierRowsComeLast, capWithoutSlope
  case gatedSwapped, everyUnitIsSilu, slopeIsSigmoid
  case embeddingGradientKeepsLast, embeddingGradientIgnoresAlpha, capIsACut, crossEntropyIgnoresScale
  case otherBitsEachTime, dropoutThresholdCutOff, dropoutByRowNumber, dropoutUnscaled, dropoutUpperHalfFirst, oneKeyForAllExperts
  case tiesToTheHigherIndex, topPWithoutTheLast, topPReachesInsteadOfExceeding, temperatureForgotten
  case weightsNotRenormalized, topPRenormalizes, noneCountsForTheLastExpert, routerIgnoresBalance, routerWithoutMean
  case combineIgnoresWeights, noneIsRowZero, spareRowsStayUnwritten, spareRowsBelongToTheLast
  case blocksOfAnotherExpert, combineBlocksLeavesGarbage, groupedGemmSwapsExperts, groupedOuterIgnoresAlpha, expertProductsIgnoreWeights
  case adamWWithoutBiasCorrection, adamWDecaysTheGradient, optimizerIgnoresRange

  /// The operations whose cases have to fail, one by one.
  var operations: [String] {
    switch self {
    case .uploadsThroughFloat: ["upload", "gemm", "rmsNorm"]
    case .copyIgnoresRanges: ["copyInto"]
    case .copyIgnoresIndices: ["copyRows"]
    case .fillMultiplies: ["fill"]
    case .writesSharedStorage: ["add", "gemm", "rope", "sharing"]
    case .writesOneTooMany: ["add", "gemm", "adamW", "copyRows", "fill"]
    case .viewsReadAsContiguous: ["upload", "gemm", "attention", "dispatch"]
    case .indicesIgnoreOffset: ["uploadIntegers", "embedding", "copyRows", "rope", "dropout", "route", "combine", "groupedGemm"]
    case .computesInFloat: ["gemm", "rmsNorm", "attention", "adamW"]
    case .downloadWaitsForEach: ["download", "counters"]
    case .countsTwice: ["counters"]
    case .zeroTimesNaNIsZero, .rmsNormHidesNaN, .attentionHidesNaN: ["NaN"]
    case .addIgnoresRows: ["add"]
    case .columnSumsOverwrite: ["addColumnSums"]
    case .normalTooWide: ["random"]
    case .gemmReadsCWithBetaZero, .gemmIgnoresBeta: ["gemm"]
    case .rmsNormWithoutEpsilon, .rhoIsAColumn: ["rmsNorm"]
    case .offsetForgotten: ["rmsNorm", "rmsNormBackward", "gradient"]
    case .rmsNormBackwardWithoutMean: ["rmsNormBackward", "gradient"]
    case .rmsNormBackwardOverwrites: ["rmsNormBackward"]
    case .ropePairsNeighbours, .ropeIgnoresInverse: ["rope", "gradient"]
    case .attentionWithoutScale, .attentionAcrossSequences, .attentionReversesRows, .headsInterleaved, .earlierRowsComeLast,
      .windowTooWide, .attentionWithoutCap:
      ["attention"]
    case .attentionBackwardWithoutScale: ["attentionBackward", "gradient"]
    case .capWithoutSlope: ["attentionBackward", "crossEntropy", "gradient"]
    case .gatedSwapped: ["gated"]
    case .everyUnitIsSilu: ["gated", "gatedBackward", "gradient"]
    case .slopeIsSigmoid: ["gatedBackward", "gradient"]
    case .embeddingGradientKeepsLast: ["addEmbeddingGradient", "gradient"]
    case .embeddingGradientIgnoresAlpha: ["addEmbeddingGradient"]
    case .capIsACut: ["softcap"]
    case .crossEntropyIgnoresScale: ["crossEntropy", "gradient"]
    case .otherBitsEachTime: ["repetition"]
    case .dropoutThresholdCutOff, .dropoutUpperHalfFirst: ["dropout"]
    case .dropoutByRowNumber, .dropoutUnscaled: ["dropout", "gradient"]
    case .oneKeyForAllExperts: ["dropoutRouted"]
    case .tiesToTheHigherIndex, .topPWithoutTheLast, .topPReachesInsteadOfExceeding: ["choose"]
    case .temperatureForgotten: ["choose", "route"]
    case .weightsNotRenormalized, .topPRenormalizes, .noneCountsForTheLastExpert: ["route"]
    case .routerIgnoresBalance, .routerWithoutMean: ["routerBackward", "gradient"]
    case .combineIgnoresWeights: ["combine"]
    case .noneIsRowZero: ["combine", "combineBlocks"]
    case .spareRowsStayUnwritten: ["dispatch"]
    case .spareRowsBelongToTheLast: ["groupedOuter"]
    case .blocksOfAnotherExpert: ["dispatchBlocks"]
    case .combineBlocksLeavesGarbage: ["combineBlocks"]
    case .groupedGemmSwapsExperts: ["groupedGemm", "gradient"]
    case .expertProductsIgnoreWeights: ["addExpertProducts"]
    case .groupedOuterIgnoresAlpha: ["groupedOuter", "gradient"]
    case .adamWWithoutBiasCorrection, .adamWDecaysTheGradient: ["adamW"]
    case .optimizerIgnoresRange: ["adamW", "sgd"]
    }
  }
}
