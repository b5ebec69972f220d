import Platform
import Synchronization
import Training

/// A run that was stopped by a signal; exit code 130.
struct Interrupted: Error {}

/// SIGINT and SIGTERM ask for an end after the current step.
struct StopSignals {
  private static let signals: [POSIX.Signal] = [.interrupt, .termination]
  private static let asked = Atomic<Bool>(false)

  init() {
    for signal in Self.signals { POSIX.handle(signal) { _ in StopSignals.asked.store(true, ordering: .relaxed) } }
  }

  /// From here on the signals end the program again.
  func end() { for signal in Self.signals { POSIX.restore(signal) } }

  var isAsked: Bool { Self.asked.load(ordering: .relaxed) }
}

/// Lines on standard error that are written over, one an adapter: only on a terminal, and not if asked to be quiet.
struct Progress {
  private let isShown: Bool
  private let steps: [(adapter: String?, count: Int)]
  private var lines: [String]
  private var first: (step: Int, seconds: Double)?

  /// Lines for so many steps of each adapter; a single one needs no name.
  init(quiet: Bool, steps: [(adapter: String?, count: Int)]) {
    isShown = !quiet && POSIX.isTerminal(.standardError)
    self.steps = steps
    lines = steps.map { $0.adapter ?? "" }
  }

  mutating func show(_ line: Metrics) {
    guard isShown, let index = steps.firstIndex(where: { $0.adapter == line.adapter }) else { return }
    if first != nil, lines.count > 1 { writeError("\u{1b}[\(lines.count - 1)A") }
    lines[index] = text(line, of: steps[index].count)
    // A longer line would wrap, and the next one could not write over it.
    let columns = (POSIX.terminalColumns ?? 80) - 1
    writeError(lines.map { "\r\u{1b}[K" + $0.prefix(columns) }.joined(separator: "\n"))
  }

  private mutating func text(_ line: Metrics, of steps: Int) -> String {
    let now = POSIX.seconds
    let start = first ?? (line.step, now)
    first = start
    let left = line.step > start.step ? (now - start.seconds) / Double(line.step - start.step) * Double(steps - line.step) : .nan
    let eta = !left.isFinite ? "" : left < 60 ? "  \(Int(left)) s left" : "  \(Int(left) / 60) min \(Int(left) % 60) s left"
    var load = ""
    if let layers = line.expertLoad, let experts = layers.first?.count {
      let mean = (0..<experts).map { e in layers.reduce(0) { $0 + $1[e] } / Double(layers.count) }
      load = "  load " + mean.map { "\(Int((100 * $0).rounded()))" }.joined(separator: "/")
    }
    return
      (line.adapter.map { $0 + "  " } ?? "")
      + "step \(line.step)/\(steps)  loss \(fixed(line.loss, 4))  lr \(scientific(line.learningRate))  "
      + "\(fixed(line.tokensPerSecond, 0)) tokens/s\(eta)\(load)"
  }

  func end() { if isShown, first != nil { writeError("\n") } }
}
