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
    for record in recorder.visits where record.point.phase == phase && isWanted(record.point.path) {
      let width = record.shape.columns
      if record.point.path.contains(".experts.") {
        append(record.point.description, [record.shape.rows, width], record.values)
      } else {
        let places = layout.places(ofPath: record.point.path, rows: record.shape.rows)
        append(record.point.description, [batch.rows, batch.columns, width], batch.unpacked(record.values, width: width, places))
      }
    }
    guard phase == .forward else { return }
    for owner in layout.owners {
      let places = Array(layout.places(of: owner))
      let slots = owner.mixture.policy.slots(of: owner.mixture.experts)
      for gate in layout.gates(of: owner) {
        guard let choice = recorder.choices["\(gate).choice"] else { continue }
        if isWanted("\(gate).choice") {
          append("\(gate).choice", [batch.rows, batch.columns, slots], batch.unpacked(choice.map { Scalar($0) }, width: slots, places))
        }
        let module = gate.dropLast(".moe_gate".count)
        for e in 0..<owner.mixture.experts where isWanted("\(module).experts.\(e).tokens") {
          let tokens = places.indices.filter { choice[$0 * slots..<($0 + 1) * slots].contains(Int32(e)) }
          append("\(module).experts.\(e).tokens", [tokens.count], tokens.map { Scalar(places[$0]) })
        }
      }
    }
  }
}
