import Tensors

/// One thing that every backend must do: an operation at one set of sizes, in one layout.
///
/// The cases are ordered by topic in `Cases/`. Each states what the naive definition gives and how far the backend
/// may be from it, and prefers awkward sizes: none, one, odd, no multiple of a SIMD width.
public struct OperationCase<B: Backend> {
  /// The operation, by which cases are grouped: `gemm`.
  public let operation: String
  /// Operation, sizes and layout: `gemm (7,8)(8,9) a transposed, views`.
  public let name: String
  /// Runs the case on a backend.
  public let run: (B) -> Outcome

  /// A case that a trial's comparisons decide.
  public init(
    _ operation: String, _ sizes: String, _ layout: Layout, isEmpty: Bool = false, expectsNaN: Bool = false,
    _ body: @escaping (inout Trial<B>) throws -> Void
  ) {
    let name = "\(operation) \(sizes), \(layout.rawValue)"
    self.operation = operation
    self.name = name
    run = { backend in
      var trial = Trial(
        backend, layout, name: name, isProduct: Self.products.contains(operation), isEmpty: isEmpty, expectsNaN: expectsNaN)
      do { try body(&trial) } catch { return .failed("threw \(error)") }
      return trial.outcome
    }
  }

  /// A case that this backend cannot run, and why.
  public init(_ operation: String, _ sizes: String, notRun reason: String) {
    self.operation = operation
    name = "\(operation) \(sizes)"
    run = { _ in .notRun(reason: reason) }
  }

  /// Operations that a backend may run in a lower precision than the others.
  private static var products: Set<String> {
    [
      "gemm", "attention", "attentionBackward", "groupedGemm", "groupedOuter", "expertProduct", "addExpertProducts", "addExpertOuter",
      "addExpertGradients",
    ]
  }

  /// Operations that a backend may do without; where it does, their cases are not run.
  public static var optional: Set<String> { ["expertHidden", "expertHiddenBackward"] }

  /// Every case, gradient checks included.
  public static var all: [OperationCase] {
    var list = CaseList<B>()
    list.addMemory()
    list.addElementwise()
    list.addProducts()
    list.addFrozenProducts()
    list.addNorms()
    list.addRotaryEmbedding()
    list.addAttention()
    list.addActivations()
    list.addSoftcap()
    list.addRows()
    list.addLosses()
    list.addRandomness()
    list.addRouting()
    list.addExperts()
    list.addExpertTokens()
    list.addFused()
    list.addOptimizers()
    list.addNaN()
    list.addRepetition()
    list.addGradients()
    return list.cases
  }

  /// The names of all operations, in the order of their cases.
  public static var operations: [String] {
    var names: [String] = []
    for operation in all.map(\.operation) where !names.contains(operation) { names.append(operation) }
    return names
  }
}

/// Cases as they are put together.
struct CaseList<B: Backend> {
  private(set) var cases: [OperationCase<B>] = []

  /// Adds a case in each layout.
  mutating func add(
    _ operation: String, _ sizes: String, _ layouts: [Layout] = Layout.allCases, isEmpty: Bool = false, expectsNaN: Bool = false,
    _ body: @escaping (inout Trial<B>) throws -> Void
  ) {
    for layout in layouts {
      cases.append(OperationCase(operation, sizes, layout, isEmpty: isEmpty, expectsNaN: expectsNaN, body))
    }
  }

  /// Adds a gradient check, which is meaningful in float64 only and elsewhere counted as not run.
  mutating func addGradient(_ operation: String, _ sizes: String, _ body: @escaping (inout Trial<B>) throws -> Void) {
    if B.Scalar.self == Double.self {
      cases.append(OperationCase("gradient", "of \(operation) \(sizes)", .contiguous, body))
    } else {
      let reason = "finite differences need float64, the backend computes in \(B.Scalar.self)"
      cases.append(OperationCase("gradient", "of \(operation) \(sizes)", notRun: reason))
    }
  }
}
