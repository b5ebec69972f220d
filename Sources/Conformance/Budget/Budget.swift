import Synchronization

/// What rounding explains of a tensor's error, in the norm: ‖candidate − reference‖₂ ≤ budget · ‖reference‖₂.
///
/// In a test, with a figure for every tensor of a model in the precision that the candidate's values are stored in:
///
///     #expect(candidate.matches(golden, within: .budget))
///
/// **Deriving one.** Three things are to be known of an operation.
///
/// 1. *Unit roundoff* u of what it adds up in, and of what it stores (``Precision/unitRoundoff``): a rounding moves a number x by at
///    most u |x|.
/// 2. *Length* n of its sums. A sum of n products is within γ_n Σ|terms| of the exact one in whatever order it is added,
///    γ_n = n u / (1 − n u) (Higham 2002, §3.1; ``Tolerance/gamma(_:)-(Int)``).
/// 3. *Cancellation* κ = ‖Σ|terms|‖₂ / ‖Σ terms‖₂ ≥ 1, both taken in float64 from the operation's inputs: for y = x Wᵀ it is
///    ‖ |x| |W|ᵀ ‖₂ / ‖x Wᵀ‖₂.
///
/// The operation's budget is then γ_n κ + u of the storage (``sum(of:in:cancellation:storedIn:)``). No error of a right operation is
/// outside, and a wrong one rarely inside: rounding is small.
///
/// **Combining.** Errors of two operations in a row add up at most (`+`); what comes in with an error e goes out with at most c e,
/// c the condition of the operation (``amplified(by:)``): 1 for a rotation, ‖x‖‖W‖/‖x Wᵀ‖ for a product. Errors that know nothing
/// of each other add as squares (``beside(_:)``): that is an estimate, no bound.
///
///     let product = Budget.sum(of: 64, in: .float32, cancellation: 3)
///     let stored = Budget.sum(of: 64, in: .float32, cancellation: 3, storedIn: .bfloat16)
///     #expect(y.matches(golden, within: product.amplified(by: 2) + stored))
public struct Budget: Sendable, CustomStringConvertible {
  private enum Rule {
    case relative(Double)
    case figures(margin: Double, precision: Precision?)
    case each([String: Double])
  }
  private let rule: Rule
  /// What was last judged with it, so that a failed `#expect`, which prints its arguments, says what was wrong.
  private let note = Note()

  private init(_ rule: Rule) { self.rule = rule }

  // MARK: Budgets

  /// 4 × the largest error of its kind that a right candidate was seen to have (``figure(_:in:)``), in the precision that the
  /// candidate's values are stored in.
  public static var budget: Budget { Budget(.figures(margin: 4, precision: nil)) }

  /// 4 × the largest error of its kind that a right candidate was seen to have in a precision, whatever its values are stored in.
  public static func budget(in precision: Precision) -> Budget { Budget(.figures(margin: 4, precision: precision)) }

  /// A relative error of one's own.
  ///
  /// - Precondition: `error` is not negative; NaN is a budget that nothing is within.
  public static func relative(_ error: Double) -> Budget { Budget(.relative(error)) }

  /// A relative error for each tensor by its name; a name that is not there has none, hence must be the same numbers.
  public static func each(_ errors: [String: Double]) -> Budget { Budget(.each(errors)) }

  /// Nothing but the same numbers.
  public static var exact: Budget { .relative(0) }

  /// The bound of sums of `length` products: γ_n κ, and a rounding more where the sum is stored in fewer bits.
  ///
  /// - Parameters:
  ///   - length: n, the roundings on the way to an element.
  ///   - precision: what is added up in.
  ///   - cancellation: κ = ‖Σ|terms|‖₂ / ‖Σ terms‖₂.
  ///   - storage: what the sum is stored in, if it is another precision.
  public static func sum(
    of length: Int, in precision: Precision, cancellation: Double = 1, storedIn storage: Precision? = nil
  ) -> Budget {
    let rounding = storage.map { $0 == precision ? 0 : $0.unitRoundoff } ?? 0
    return .relative(Tolerance(precision).gamma(length) * cancellation + rounding)
  }

  // MARK: Combining

  /// Two operations in a row: their errors add up at most.
  ///
  /// - Precondition: both are numbers, the same for every tensor.
  public static func + (first: Budget, second: Budget) -> Budget { .relative(first.number + second.number) }

  /// What comes in with this error goes out with at most `condition` times as much.
  ///
  /// - Precondition: this is a number, the same for every tensor.
  public func amplified(by condition: Double) -> Budget { .relative(condition * number) }

  /// Two errors that know nothing of each other: √(a² + b²). An estimate, no bound.
  ///
  /// - Precondition: both are numbers, the same for every tensor.
  public func beside(_ other: Budget) -> Budget { .relative((number * number + other.number * other.number).squareRoot()) }

  private var number: Double {
    guard case .relative(let error) = rule else {
      preconditionFailure("a budget that differs from tensor to tensor is no number to combine")
    }
    return error
  }

  // MARK: Reading

  /// The relative error that it explains of a tensor.
  ///
  /// - Parameters:
  ///   - name: the tensor's name in a trace, which says of what kind it is.
  ///   - precision: what the candidate's values are stored in.
  public func relativeError(of name: String, in precision: Precision) -> Double {
    switch rule {
    case .relative(let error): error
    case .each(let errors): errors[name] ?? 0
    case .figures(let margin, let fixed): margin * Self.figure(of: name, in: fixed ?? precision)
    }
  }

  /// What was found with it, if anything was judged; else how it is made.
  public var description: String {
    if let found = note.text.withLock({ $0 }) { return found }
    return switch rule {
    case .relative(let error): "relative error \(error)"
    case .each(let errors): "relative errors of \(errors.count) tensors"
    case .figures(let margin, let precision): "\(margin) × the figures of \(precision?.rawValue ?? "the candidate's precision")"
    }
  }

  func remember(_ found: String) { note.text.withLock { $0 = found } }

  private final class Note: Sendable {
    let text = Mutex<String?>(nil)
  }
}
