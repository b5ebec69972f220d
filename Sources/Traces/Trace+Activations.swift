import Layers
import Tensors

extension Trace {
  /// Adds what `recorder` saw of the activations that were asked for, or of their gradients, in the order of the run.
  ///
  /// A value of every token is (B,T,width), zero at padding and in the rows of others, under the path of its point, `grad.` in front of
  /// a gradient's. The rows of expert e are (rows,width), and `model.layers.N.mlp.experts.E.tokens` (rows) says which
  /// tokens they belong to, as row b · T + column t of the batch; `moe_gate.choice` (B,T,S) lists each token's experts, −1 for none.
  mutating func append<B: Backend>(_ recorder: Recorder<B>, _ phase: HookPoint.Phase, _ layout: TraceLayout<B>, _ request: TraceRequest)
  where B.Scalar == Scalar {
    guard let isWanted = request.activations else { return }
    let batch = layout.batch
    var choices = phase == .forward ? recorder.choiceVisits[...] : []
    for (n, record) in recorder.visits.enumerated() {
      while let choice = choices.first, choice.after <= n { append(choices.removeFirst().path, recorder, layout, isWanted) }
      guard record.point.phase == phase, isWanted(record.point.path) else { continue }
      let width = record.shape.columns
      if record.point.path.contains(".experts.") {
        append(record.point.description, [record.shape.rows, width], record.values)
      } else {
        let places = layout.places(ofPath: record.point.path, rows: record.shape.rows)
        append(record.point.description, [batch.rows, batch.columns, width], batch.unpacked(record.values, width: width, places))
      }
    }
    for choice in choices { append(choice.path, recorder, layout, isWanted) }
  }

  /// A router's decision, and which tokens each expert's rows are.
  private mutating func append<B: Backend>(
    _ path: String, _ recorder: Recorder<B>, _ layout: TraceLayout<B>, _ isWanted: (String) -> Bool
  ) where B.Scalar == Scalar {
    guard let choice = recorder.choices[path], let owner = layout.owner(ofPath: path) else { return }
    let (batch, places) = (layout.batch, Array(layout.places(of: owner)))
    let slots = owner.mixture.policy.slots(of: owner.mixture.experts)
    if isWanted(path) {
      append(path, [batch.rows, batch.columns, slots], batch.unpacked(choice.map { Scalar($0) }, width: slots, places))
    }
    let module = path.dropLast(".moe_gate.choice".count)
    for e in 0..<owner.mixture.experts where isWanted("\(module).experts.\(e).tokens") {
      let tokens = places.indices.filter { choice[$0 * slots..<($0 + 1) * slots].contains(Int32(e)) }
      append("\(module).experts.\(e).tokens", [tokens.count], tokens.map { Scalar(places[$0]) })
    }
  }
}
