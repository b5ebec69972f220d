/// Which expert computes which token: the plan that all expert operations follow.
///
/// The N·K choices are ordered by expert, then by token, so that an expert's rows are one range. Everything lies
/// on the device; a GPU's kernels read the offsets there, only CPU backends look at them on the host.
public struct Routing<B: Backend> {
  /// Number of tokens N.
  public let tokens: Int
  /// Number of experts E.
  public let experts: Int
  /// Experts per token K.
  public let expertsPerToken: Int
  /// The expert of each choice, largest probability first: (N·K), choice k of token n at n·K + k.
  public let choice: Indices<B>
  /// The row in expert order of each choice: (N·K).
  public let rowOfChoice: Indices<B>
  /// The token of each row in expert order: (M).
  public let tokenOfRow: Indices<B>
  /// The choice (n·K + k) of each row in expert order: (M).
  public let choiceOfRow: Indices<B>
  /// Where each expert's rows begin, and M at the end: (E+1).
  public let offsets: Indices<B>
  /// Routing weight of each row in expert order: (M).
  public let weights: Tensor<B>
  /// Number of rows of each expert, as scalars: (E).
  public let counts: Tensor<B>
  /// Number of tokens whose first choice is each expert, as scalars: (E).
  public let firstCounts: Tensor<B>

  /// Puts a plan together. Only backends call this.
  public init(
    tokens: Int, experts: Int, expertsPerToken: Int, choice: Indices<B>, rowOfChoice: Indices<B>, tokenOfRow: Indices<B>,
    choiceOfRow: Indices<B>, offsets: Indices<B>, weights: Tensor<B>, counts: Tensor<B>, firstCounts: Tensor<B>
  ) {
    self.tokens = tokens
    self.experts = experts
    self.expertsPerToken = expertsPerToken
    self.choice = choice
    self.rowOfChoice = rowOfChoice
    self.tokenOfRow = tokenOfRow
    self.choiceOfRow = choiceOfRow
    self.offsets = offsets
    self.weights = weights
    self.counts = counts
    self.firstCounts = firstCounts
  }

  /// Number of rows in expert order, M = N·K.
  public var rows: Int { tokens * expertsPerToken }
}

/// E matrices of one size in one tensor, side by side or one below the other.
///
/// All experts' A (r,I) lie below each other in (E·r,I), so that x A_allᵀ is one product; all experts' B (O,r)
/// lie side by side in (O,E·r), so that T B_allᵀ is one product as well.
public struct ExpertStack<B: Backend> {
  /// How the matrices are stacked.
  public enum Axis: Sendable {
    /// One below the other: (E·r, I), expert e has rows e·r ..< (e+1)·r.
    case rows
    /// Side by side: (O, E·r), expert e has columns e·r ..< (e+1)·r.
    case columns
  }

  /// All matrices.
  public let matrices: Tensor<B>
  /// How they are stacked.
  public let axis: Axis
  /// True if each matrix is read transposed.
  public let isTransposed: Bool

  /// A stack along `axis`.
  public init(_ matrices: Tensor<B>, along axis: Axis, isTransposed: Bool = false) {
    self.matrices = matrices
    self.axis = axis
    self.isTransposed = isTransposed
  }

  /// The stack with each of its matrices transposed; nothing is moved.
  public var T: ExpertStack { ExpertStack(matrices, along: axis, isTransposed: !isTransposed) }

  /// Expert e of E, as it is stored.
  public static func block(_ e: Int, of experts: Int, in matrices: Tensor<B>, along axis: Axis) -> Tensor<B> {
    switch axis {
    case .rows:
      let r = matrices.rowCount / experts
      return matrices.rows(e * r..<(e + 1) * r)
    case .columns:
      let r = matrices.columnCount / experts
      return matrices.columns(e * r..<(e + 1) * r)
    }
  }
}
