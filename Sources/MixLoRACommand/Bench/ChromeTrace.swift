import Checkpoints
import Decoders
import Platform
import Tensors

/// What ran when, in the form that chrome://tracing and Perfetto read: an array of complete events, in microseconds from the first one's
/// beginning. A span that lies within another is shown below it: what the first thread, the caller, did of operations in these, operations
/// in layers, layers in phases, phases in a step. What other threads did stands beside it, a row each.
struct ChromeTrace {
  /// Something that ran from `start` to `end`, seconds of ``POSIX/seconds``.
  struct Span {
    let name: String
    let kind: String
    var thread = 0
    let start: Double
    let end: Double
  }

  private var spans: [Span] = []

  mutating func add(_ name: String, _ kind: String, _ start: Double, _ end: Double) {
    if end > start { spans.append(Span(name: name, kind: kind, start: start, end: end)) }
  }

  /// The calls of the last repetition; what threads did of a call has its name.
  mutating func add(_ profile: OperationProfile) {
    let calls = profile.calls
    for call in calls { add(call.name, "operation", call.start, call.start + call.seconds) }
    for (thread, parts) in Dictionary(grouping: profile.parts, by: \.thread) {
      var next = 0  // the calls and a thread's parts are in the order of time
      for part in parts {
        while next < calls.count, calls[next].start + calls[next].seconds < part.start { next += 1 }
        guard next < calls.count, calls[next].start <= part.start else { continue }
        spans.append(
          Span(name: calls[next].name, kind: "part", thread: thread, start: part.start, end: part.start + part.seconds))
      }
    }
  }

  mutating func add(_ others: [Span]) { spans += others }

  /// The events by their beginning, the longer one first where two begin together.
  ///
  /// Ends are rounded, not durations, so that what lies within another does so in the file as well.
  var text: String {
    let first = spans.map(\.start).min() ?? 0
    func nanoseconds(_ seconds: Double) -> Int { Int((1e9 * (seconds - first)).rounded()) }
    let sorted = spans.sorted { ($0.start, -$0.end) < ($1.start, -$1.end) }
    let lines = sorted.map { span in
      let (start, end) = (nanoseconds(span.start), nanoseconds(span.end))
      let event: JSON = [
        "name": JSON(span.name), "cat": JSON(span.kind), "ph": "X", "ts": JSON(Double(start) / 1000),
        "dur": JSON(Double(end - start) / 1000),
        "pid": 1, "tid": JSON(span.thread + 1),
      ]
      return event.serialized()
    }
    return "[\n" + lines.joined(separator: ",\n") + "\n]\n"
  }

  func write(to path: String) throws { try AtomicFile.write(text, to: path) }
}

/// Notes when the residual stream passes from one layer to the next, and its gradient back: a model's layers as spans.
final class LayerMarks<B: Backend>: Hook {
  private let paths: Set<String>
  private var marks: [(layer: String, phase: HookPoint.Phase, seconds: Double)] = []

  init(_ decoder: Decoder<B>) {
    paths = Set(([decoder.embedding.path, decoder.norm.path] + decoder.blocks.map(\.path)).map { $0 + ".output" })
  }

  func listens(to path: String) -> Bool { paths.contains(path) }

  func visit(_ value: inout Tensor<B>, at point: HookPoint) throws {
    marks.append((String(point.path.dropLast(".output".count)), point.phase, POSIX.seconds))
  }

  /// The layers of a pass: forward each ends at its mark, backward it begins there. The head is what runs from the last mark, or from
  /// `middle` where forward ends later, to the first gradient, or to `end`.
  func spans(_ start: Double, _ middle: Double, _ end: Double) -> [ChromeTrace.Span] {
    let marks = marks.filter { start <= $0.seconds && $0.seconds <= end }
    let (forward, backward) = (marks.filter { $0.phase == .forward }, marks.filter { $0.phase == .backward })
    func spans(_ layers: [String], _ bounds: [Double]) -> [ChromeTrace.Span] {
      zip(layers, zip(bounds, bounds.dropFirst())).map { ChromeTrace.Span(name: $0, kind: "layer", start: $1.0, end: $1.1) }
    }
    return spans(forward.map(\.layer), [start] + forward.map(\.seconds))
      + spans(["lm_head"], [max(middle, forward.last?.seconds ?? middle), backward.first?.seconds ?? end])
      + spans(backward.map(\.layer), backward.map(\.seconds) + [end])
  }
}
