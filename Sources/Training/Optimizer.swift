import Tensors

/// Something that updates parameters from their gradients.
public protocol Optimizer<B> {
  /// The backend of the parameters.
  associatedtype B: Backend
  /// The learning rate of the next step; a schedule sets it.
  var learningRate: Double { get set }
  /// Makes step `number`, counted from 1: updates every parameter from its gradient times `factor` (1 if nil) and sets the
  /// gradients to zero.
  ///
  /// If the factor is not finite, no value and no moment changes.
  /// - Complexity: a few operations for each arena, whatever the number of parameters.
  mutating func step(_ number: Int, factor: Tensor<B>?)
  /// What it keeps of each parameter, by name: all that a resumed run needs.
  var moments: [Moment<B>] { get }
  /// Takes up where another run stopped, from the value of every moment by name.
  mutating func restore(_ moment: (_ name: String, _ shape: Shape, _ isBytes: Bool) throws -> Tensor<B>) throws
}

/// What an optimizer keeps of a parameter.
public struct Moment<B: Backend> {
  /// What a checkpoint calls it.
  public let name: String
  /// The numbers, or memory in which bytes lie one after the other.
  public let value: Tensor<B>
  /// The shape of the bytes; nil of numbers.
  public let bytes: Shape?

  /// Numbers, or bytes of a shape.
  public init(name: String, value: Tensor<B>, bytes: Shape? = nil) { (self.name, self.value, self.bytes) = (name, value, bytes) }
}

/// The parts of an arena that learn at one rate.
///
/// LoRA+ (Hayou et al. 2024, arXiv:2402.12354): every B learns `ratio` times as fast as everything else.
struct RateRange {
  /// Elements of the arena; nil for all.
  let elements: Range<Int>?
  /// What the learning rate is multiplied with.
  let factor: Double

  static func of<B: Backend>(_ arena: ParameterArena<B>, loraPlusRatio ratio: Double) -> [RateRange] {
    if ratio == 1 { return [RateRange(elements: nil, factor: 1)] }
    return [
      RateRange(elements: 0..<arena.rangeOfB.lowerBound, factor: 1), RateRange(elements: arena.rangeOfB, factor: ratio),
    ].filter { $0.elements?.isEmpty == false }
  }
}

/// A value for each element of some arenas: a moment.
struct ArenaVectors<B: Backend> {
  let arenas: [ParameterArena<B>]
  var vectors: [Tensor<B>]
  private let parameters: [Parameter<B>]

  /// Zeros for the arenas of these parameters.
  init(_ parameters: [Parameter<B>], on backend: B) {
    self.parameters = parameters
    arenas = ParameterArena.of(parameters)
    vectors = arenas.map { backend.zeros($0.shape) }
  }

  /// Each parameter's part, its name behind `prefix`.
  func named(_ prefix: String) -> [Moment<B>] {
    parameters.map { Moment(name: prefix + $0.name, value: part(of: $0)) }
  }

  /// A parameter's part.
  func part(of parameter: Parameter<B>) -> Tensor<B> { parameter.view(of: vectors[index(of: parameter)]) }

  /// Sets each parameter's part.
  mutating func restore(_ prefix: String, _ value: (_ name: String, _ shape: Shape, _ isBytes: Bool) throws -> Tensor<B>) throws {
    for parameter in parameters {
      parameter.write(try value(prefix + parameter.name, parameter.shape, false), into: &vectors[index(of: parameter)])
    }
  }

  private func index(of parameter: Parameter<B>) -> Int {
    guard let index = arenas.firstIndex(where: { $0 === parameter.arena }) else { trap("\(parameter.name): it moved to another arena") }
    return index
  }
}
