import Checkpoints
import Layers
import Samples
import Tensors

/// The batches of a run as a safetensors file, so that another program can train on the same ones.
///
/// For every step N, counted from 1, all micro-batches of the step together, padded on the right:
///
///     step.N.input_ids        I64 (B,T)   0 at padding
///     step.N.attention_mask   I64 (B,T)   1 where there is a token
///     step.N.labels           I64 (B,T)   the token itself where its column counts, else −100 (Hugging Face shifts them)
///     step.N.adapter          I64 (B)     the number of the row's adapter, where there are several
enum BatchFile {
  private enum Field: String, CaseIterable {
    case ids = "input_ids"
    case mask = "attention_mask"
    case labels
    case adapter
  }

  /// Writes the batches of the first `steps` steps; one tensor at a time is in memory.
  ///
  /// - Throws: `CheckpointError` if the system fails or the steps are more than the format's header can list.
  static func write<B: Backend>(
    to path: String, _ learners: [Learner<B>], steps: Int, metadata: KeyValuePairs<String, String>
  ) throws {
    let fields = Field.allCases.filter { $0 != .adapter || learners.count > 1 }
    guard steps <= Safetensors.maximumTensorCount / fields.count else {
      throw CheckpointError(
        file: path, found: "\(steps) steps with \(fields.count) tensors each",
        expected: "at most \(Safetensors.maximumTensorCount) tensors in a file")
    }
    var plans = learners.map(\.plan)
    // The file lists steps by name, 10 before 2, so which samples they have is found out first, in their own order.
    let batches = (0..<steps).map { step in
      learners.indices.filter { step < learners[$0].steps }.flatMap { i in
        plans[i].microBatches(step: step).joined().map { (adapter: i, sample: $0) }
      }
    }
    var places: [String: (step: Int, field: Field)] = [:]
    var entries: [TensorEntry] = []
    for (step, batch) in batches.enumerated() {
      let columns = batch.map { learners[$0.adapter].samples[$0.sample].ids.count }.max() ?? 0
      for field in fields {
        let name = "step.\(step + 1).\(field.rawValue)"
        entries.append(try TensorEntry(name: name, elementType: .int64, shape: field == .adapter ? [batch.count] : [batch.count, columns]))
        places[name] = (step, field)
      }
    }
    try SafetensorsWriter.write(to: path, entries: entries, metadata: metadata) { entry, emit in
      guard let (step, field) = places[entry.name] else { return }
      if field == .adapter { return try batches[step].map { Int64($0.adapter) }.withUnsafeBytes { try emit($0) } }
      var values: [Int64] = []
      values.reserveCapacity(entry.shape[0] * entry.shape[1])
      for sample in batches[step].map({ learners[$0.adapter].samples[$0.sample] }) {
        switch field {
        case .ids: values += sample.ids.map { Int64($0) }
        case .mask: values += sample.ids.map { _ in 1 }
        case .adapter: break
        case .labels: values += sample.ids.indices.map { sample.isLabel[$0] ? Int64(sample.ids[$0]) : PackedSequence.ignoredLabel }
        }
        values += repeatElement(field == .labels ? PackedSequence.ignoredLabel : 0, count: entry.shape[1] - sample.ids.count)
      }
      try values.withUnsafeBytes { try emit($0) }
    }
  }
}
