import Decoders
import Layers
import Tensors

extension Trace {
  /// Adds what `recorder` saw of the activations that were asked for, or of their gradients, in the order of the run.
  ///
  /// A value of every token is (B,T,width), zero at padding, under the path of its point, `grad.` in front of a
  /// gradient's. The rows of expert e are (rows,width), and `model.layers.N.mlp.experts.E.tokens` (rows) says which
  /// tokens they belong to, as row b · T + column t of the batch; `moe_gate.choice` (B,T,K) lists each token's experts.
  mutating func append<B: Backend>(
    _ recorder: Recorder<B>, _ phase: HookPoint.Phase, _ decoder: Decoder<B>, _ batch: TraceBatch, _ request: TraceRequest
  ) where B.Scalar == Scalar {
    guard let isWanted = request.activations else { return }
    for record in recorder.visits where record.point.phase == phase && isWanted(record.point.path) {
      let width = record.shape.columns
      if record.point.path.contains(".experts.") {
        append(record.point.description, [record.shape.rows, width], record.values)
      } else {
        append(record.point.description, [batch.rows, batch.columns, width], batch.unpacked(record.values, width: width))
      }
    }
    guard phase == .forward, let mixture = decoder.adapter?.mixture else { return }
    let places = batch.places
    let k = mixture.expertsPerToken
    for layer in 0..<decoder.configuration.layers {
      let module = "model.layers.\(layer).mlp"
      guard let choice = recorder.choices["\(module).moe_gate.choice"] else { continue }
      if isWanted("\(module).moe_gate.choice") {
        append("\(module).moe_gate.choice", [batch.rows, batch.columns, k], batch.unpacked(choice.map { Scalar($0) }, width: k))
      }
      for e in 0..<mixture.experts where isWanted("\(module).experts.\(e).tokens") {
        let tokens = places.indices.filter { choice[$0 * k..<($0 + 1) * k].contains(Int32(e)) }
        append("\(module).experts.\(e).tokens", [tokens.count], tokens.map { Scalar(places[$0]) })
      }
    }
  }
}
