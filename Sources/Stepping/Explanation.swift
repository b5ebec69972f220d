/// How one number of a run is formed of others: the terms of a sum, or the factors of a product.
public struct Explanation: Sendable {
  /// Something that is multiplied.
  public struct Factor: Equatable, Sendable {
    /// What it is, in the letters of the equation: `x[0,3,7]`.
    public let text: String
    /// Its value.
    public let value: Double
    /// The tensors that it is read from or formed of, by their letters in `text`.
    public let sources: [Source]

    /// What a letter stands for.
    public struct Source: Equatable, Sendable {
      /// The letter, perhaps with the number of a reader or an expert.
      public let letter: String
      /// A tensor of the run, or a weight.
      public let name: String
    }

    /// A factor.
    public init(_ text: String, _ value: Double, _ sources: [Source] = []) {
      (self.text, self.value, self.sources) = (text, value, sources)
    }

    /// A factor that is read from one tensor, or formed of it.
    public init(_ text: String, _ value: Double, of letter: String, _ name: String) {
      self.init(text, value, [Source(letter: letter, name: name)])
    }
  }

  /// Something that is added: a product.
  public struct Term: Equatable, Sendable {
    /// Its factors.
    public let factors: [Factor]
    /// Their product.
    public var value: Double { factors.reduce(1) { $0 * $1.value } }

    /// A product.
    public init(_ factors: Factor...) { self.factors = factors }
    init(_ factors: [Factor]) { self.factors = factors }
  }

  /// What a number is.
  public enum Form: Sendable {
    /// The sum of the terms.
    case sum([Term])
    /// The product of the factors.
    case product([Factor])
    /// A decision: the first of these in their order that is left, or the number of one that is none of them.
    case choice(Double, candidates: [Factor])
    /// 0, because nothing is there: the reason.
    case nothing(String)
  }

  /// The element.
  public let element: RunElement
  /// What the run has there.
  public let value: Double
  /// How its tensor is formed.
  public let equation: String
  /// What this number is.
  public let form: Form

  /// The number again, from what the terms or factors say.
  public var recomputed: Double {
    switch form {
    case .sum(let terms): terms.reduce(0) { $0 + $1.value }
    case .product(let factors): factors.reduce(1) { $0 * $1.value }
    case .choice(let value, _): value
    case .nothing: 0
    }
  }

  /// The tensors and weights that its factors are read from.
  public var sources: [Factor.Source] {
    switch form {
    case .nothing: []
    case .choice(_, let candidates): candidates.flatMap(\.sources)
    case .product(let factors): factors.flatMap(\.sources)
    case .sum(let terms): terms.flatMap { $0.factors.flatMap(\.sources) }
    }
  }

  /// Σ |term|: what rounding of the sum is relative to.
  public var magnitude: Double {
    if case .sum(let terms) = form { return terms.reduce(0) { $0 + abs($1.value) } }
    return abs(recomputed)
  }

  /// The terms by falling size; of equal ones the first comes first.
  public var largestFirst: [Term] {
    guard case .sum(let terms) = form else { return [] }
    return terms.enumerated().sorted { (abs($0.element.value), $1.offset) > (abs($1.element.value), $0.offset) }.map(\.element)
  }
}
