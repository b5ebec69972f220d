import Tensors

/// What became of every case on one backend.
///
/// Printed, it is a line of counts and then one line per case that failed or was not run.
public struct ConformanceReport: CustomStringConvertible, Sendable {
  /// A case and its outcome.
  public struct Entry: Equatable, Sendable {
    /// The name of the case.
    public let name: String
    /// What became of it.
    public let outcome: Outcome

    /// An entry.
    public init(name: String, outcome: Outcome) {
      self.name = name
      self.outcome = outcome
    }
  }

  /// All cases in the order in which they ran.
  public let entries: [Entry]

  /// A report of given entries.
  public init(_ entries: [Entry]) { self.entries = entries }

  /// Runs every case of `operations` on `backend`; all of them when nil.
  public init<B: Backend>(_ backend: B, operations: Set<String>? = nil) {
    let cases = OperationCase<B>.all.filter { operations?.contains($0.operation) ?? true }
    self.init(cases.map { Entry(name: $0.name, outcome: $0.run(backend)) })
  }

  /// Runs every program on two backends, the more precise one second.
  public init<Low: Backend, High: Backend>(_ low: Low, against high: High) {
    self.init(PrecisionCase<Low, High>.all.map { Entry(name: $0.name, outcome: $0.run(low, high)) })
  }

  /// Cases within their bounds.
  public var passed: [Entry] { entries.filter(\.outcome.isPassed) }
  /// Cases that are not.
  public var failed: [Entry] { entries.filter(\.outcome.isFailed) }
  /// Cases that could not be run. Counted and named, never a pass.
  public var notRun: [Entry] { entries.filter { !$0.outcome.isPassed && !$0.outcome.isFailed } }

  /// True if something ran and nothing failed.
  public var isPassed: Bool { failed.isEmpty && !passed.isEmpty }

  /// The counts, then a line per failure and per case that was not run.
  public var description: String {
    var lines = ["\(passed.count) passed, \(failed.count) failed, \(notRun.count) not run"]
    if passed.isEmpty { lines.append("failed: no case passed, so nothing was shown") }
    for entry in entries {
      switch entry.outcome {
      case .passed: continue
      case .failed(let message): lines.append("failed: \(entry.name): \(message)")
      case .notRun(let reason): lines.append("not run: \(entry.name): \(reason)")
      }
    }
    return lines.joined(separator: "\n")
  }
}
