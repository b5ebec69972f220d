import Tensors
import Traces

// Numbers put in the place of others, and what follows from them.
extension Stepper {
  func patch(_ asked: RunElement, _ number: String) throws -> [String] {
    guard let value = Double(number), value.isFinite else { throw CommandError(description: "found '\(number)'; expected a finite number") }
    let explainer = Explainer(run)
    // Another name of a number is as good as its own.
    let element = explainer.original(of: asked)
    guard let provenance = run.provenance(of: element.name) else { throw unknown(element.name) }
    if let obstacle = provenance.obstacle {
      throw CommandError(description: "found '\(element.name)', which cannot be patched: \(obstacle)")
    }
    if case .choice(let p, _) = provenance.formula {
      let experts = run.shape(of: p)?.last ?? 0
      guard value == value.rounded(), value >= -1, value < Double(experts) else {
        throw CommandError(description: "found '\(number)'; expected an expert, 0 to \(experts - 1), or -1 for none")
      }
    }
    if case .nothing(let reason) = try explainer.why(element).form {
      throw CommandError(description: "found '\(element)', where nothing is: \(reason); expected an element of the run")
    }
    let before = explainer.value(element.name, element.index)
    let wanted = patches.filter { $0.name != element.name || $0.index != element.index } + [Patch(element.name, element.index, value)]
    do { run = try rerun(wanted) } catch let error as PatchError { throw CommandError(description: error.description) }
    patches = wanted
    let names = asked == element ? "\(asked)" : "\(asked), which is \(element)"
    return ["\(names): \(text.number(before)) → \(text.number(value)); 'diff' shows what follows"]
  }

  /// Every tensor that differs from the run without patches, in the order of the run.
  func difference() -> [String] {
    var lines: [String] = []
    for name in run.names {
      guard let shape = run.shape(of: name), let before = original.shape(of: name) else { continue }
      if shape != before {
        lines.append("\(name)  \(text.shape(before)) → \(text.shape(shape))")
        continue
      }
      let (new, old) = (run.values(of: name), original.values(of: name))
      let changed = new.indices.filter { new[$0] != old[$0] && !(new[$0].isNaN && old[$0].isNaN) }
      guard let worst = changed.max(by: { abs(new[$0] - old[$0]) < abs(new[$1] - old[$1]) }) else { continue }
      let element = RunElement(name, text.index(worst, shape))
      let (from, to) = (text.number(old[worst]), text.number(new[worst]))
      let change = from == to ? "\(from), by \(text.number(new[worst] - old[worst]))" : "\(from) → \(to)"
      lines.append("\(element)  \(change)  (\(changed.count) of \(new.count))")
    }
    return lines.isEmpty ? ["Nothing differs."] : lines
  }
}
