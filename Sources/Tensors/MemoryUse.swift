/// What a backend takes of memory beside the tensors that its operations give, and how dear it is: by it layers decide what they keep, and
/// `ShapeBackend`, in Traces, counts bytes as the backend would.
public struct MemoryUse: Sendable {
  /// Whether a layer's normalized input is formed again in backward, a pass over x instead of N·C numbers. Where every operation is a
  /// launch it is kept.
  public var formsNormsAgain = false
  /// Elements from which on a vector of zeros takes memory only as it is written: gradients, before backward comes to them.
  public var lazyCount: Int
  /// Bytes of a row of a dropout mask that is kept until its key is asked for other rows; 0 where masks are formed again.
  public var maskBytes: @Sendable (_ columns: Int) -> Int
  /// Bytes of each buffer that an operation of the experts takes while it runs; nil where the backend has none and runs the layer's lines.
  public var scratch: @Sendable (ExpertOperation) -> [Int]?

  /// The use of a backend that runs the definitions in `Backend`.
  ///
  /// - Parameter scalarBytes: of a number there.
  public init(scalarBytes: Int) {
    lazyCount = .max
    maskBytes = { _ in 0 }
    scratch = { operation in
      switch operation.kind {
      case .product(let rank), .addition(let rank): [scalarBytes * operation.tokens * operation.experts * rank]
      case .hidden, .hiddenBackward: nil
      }
    }
  }
}

/// An operation of the experts by its sizes.
public struct ExpertOperation: Sendable {
  /// Which one; r is the rank of a branch.
  public enum Kind: Sendable {
    /// `expertProduct`: from `width` columns to r.
    case product(rank: Int)
    /// `addExpertProducts`, `addExpertOuter` and `addExpertGradients`: r columns a row, and `width` of them of what is added to.
    case addition(rank: Int)
    /// `expertHidden`.
    case hidden(rank2: Int)
    /// `expertHiddenBackward`.
    case hiddenBackward(rank1: Int, rank2: Int, rank3: Int)
  }

  /// Which one.
  public let kind: Kind
  /// Tokens N.
  public let tokens: Int
  /// Rows M.
  public let rows: Int
  /// Experts E.
  public let experts: Int
  /// Columns C or F.
  public let width: Int

  /// An operation over the rows of a plan.
  public init<B: Backend>(_ kind: Kind, _ routing: Routing<B>, width: Int) {
    (self.kind, tokens, rows, experts, self.width) = (kind, routing.tokens, routing.rows, routing.experts, width)
  }
}
