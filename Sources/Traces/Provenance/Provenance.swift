/// Where a tensor of a trace comes from: which operation forms it, by which equation, of what.
///
/// ``Provenances`` has one for every point that `mixlora trace --list` prints and for every other tensor of a trace. It is the table
/// that tools read: a comparison that looks for the first wrong operation, a walk that explains a number.
public struct Provenance: Equatable, Sendable {
  /// When a tensor is formed.
  public enum Phase: String, Sendable, CaseIterable {
    /// On the way to the loss.
    case forward
    /// On the way back.
    case backward
    /// In a step of AdamW.
    case optimizer
  }

  /// Something that an equation reads.
  public struct Input: Equatable, Sendable {
    /// What an input is.
    public enum Source: Equatable, Sendable {
      /// A tensor of the trace that is formed before.
      case point(String)
      /// A weight, by the name that its checkpoint or adapter gives it; of several adapters behind `adapter.<number>.`.
      case weight(String)
      /// A tensor of the batch: `input_ids`, `labels`, `attention_mask` (which columns are positions of a row) or `adapter`.
      case batch(String)
    }

    /// The letter that stands for it in the equation.
    public let letter: String
    /// What it is.
    public let source: Source

    /// An input.
    public init(_ letter: String, _ source: Source) { (self.letter, self.source) = (letter, source) }

    /// The name of the point, weight or tensor of the batch.
    public var name: String {
      switch source {
      case .point(let name), .weight(let name), .batch(let name): name
      }
    }
  }

  /// Whose tokens a tensor has rows of; the rows of others are zero in a trace.
  public enum Rows: Equatable, Sendable {
    /// All.
    case all
    /// Those of one adapter.
    case adapter(Int)
    /// Those that no adapter serves.
    case base
  }

  /// The tensor's name in a trace.
  public let name: String
  /// When it is formed.
  public let phase: Phase
  /// How it is formed, by what it is formed of: what everything else here follows from.
  public let formula: Formula
  /// Whose tokens it has rows of, where its rows are tokens.
  public let rows: Rows

  /// A tensor of the given formula.
  public init(name: String, phase: Phase, formula: Formula, rows: Rows = .all) {
    (self.name, self.phase, self.formula, self.rows) = (name, phase, formula, rows)
  }

  /// The kind of operation that forms it.
  public var operation: OperationKind { formula.operation }
  /// How it is formed, in the letters of the inputs; what the model does not have (a bias, a branch) is left out.
  public var equation: String { formula.equation }
  /// What the equation reads, each once.
  public var inputs: [Input] {
    var seen: Set<String> = []
    return formula.inputs.filter { seen.insert($0.name).inserted }
  }
}

/// The kinds of operations that form the tensors of a trace; raw values are their public names.
public enum OperationKind: String, Sendable, CaseIterable {
  /// Rows of the table of tokens.
  case embedding
  /// Root-mean-square normalization.
  case norm
  /// A matrix, its bias, and low-rank branches.
  case linear
  /// Queries or keys turned by position.
  case rotary
  /// Softmax of scores times values.
  case attention
  /// Another name of the same numbers.
  case same
  /// A sum of streams.
  case residual
  /// act(a) ⊙ c.
  case gated
  /// Logits of the experts.
  case router
  /// Probabilities of the experts.
  case softmax
  /// Which experts a token has.
  case choice
  /// Which tokens an expert has.
  case tokens
  /// What a token's experts weigh.
  case weights
  /// A linear layer of one expert.
  case experts
  /// The weighted sum over a token's experts.
  case combine
  /// The logits, before a soft cap.
  case head
  /// The logits as they are written, and other tensors that are written in another order or form.
  case output
  /// The cross-entropy.
  case loss
  /// The balance loss.
  case balance
  /// The gradient of the cross-entropy.
  case lossGradient = "loss gradient"
  /// The gradient of what linear layers read.
  case linearGradient = "linear gradient"
  /// The gradient of what a norm reads.
  case normGradient = "norm gradient"
  /// The gradient of queries, keys or values.
  case attentionGradient = "attention gradient"
  /// A gradient turned back.
  case rotaryGradient = "rotary gradient"
  /// The gradient of a or c.
  case gatedGradient = "gated gradient"
  /// The gradient of what one expert gives.
  case expertsGradient = "experts gradient"
  /// The gradient of what all experts share.
  case combineGradient = "combine gradient"
  /// The gradient of the weights of a token's experts.
  case weightsGradient = "weights gradient"
  /// The gradient of the router's logits.
  case routerGradient = "router gradient"
  /// The gradient of a matrix.
  case matrixGradient = "matrix gradient"
  /// The gradient of a bias.
  case biasGradient = "bias gradient"
  /// The gradient of a norm's weight.
  case gainGradient = "gain gradient"
  /// The gradient of the table of tokens.
  case embeddingGradient = "embedding gradient"
  /// The gradient of the A or B of a low-rank branch.
  case branchGradient = "branch gradient"
  /// A moment or a value of AdamW.
  case optimizer
}
