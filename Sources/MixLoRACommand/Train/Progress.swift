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

/// A line on standard error that is written over: only on a terminal, and not if asked to be quiet.
struct Progress {
  private let isShown: Bool
  private let steps: Int
  private var first: (step: Int, seconds: Double)?

  init(quiet: Bool, steps: Int) {
    isShown = !quiet && POSIX.isTerminal(.standardError)
    self.steps = steps
  }

  mutating func show(_ line: Metrics) {
    guard isShown else { return }
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
    let text =
      "step \(line.step)/\(steps)  loss \(fixed(line.loss, 4))  lr \(scientific(line.learningRate))  "
      + "\(fixed(line.tokensPerSecond, 0)) tokens/s\(eta)\(load)"
    // A longer line would wrap, and the next one could not write over it.
    writeError("\r\u{1b}[K" + text.prefix((POSIX.terminalColumns ?? 80) - 1))
  }

  func end() { if isShown, first != nil { writeError("\n") } }
}
