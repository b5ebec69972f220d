import Decoders
import Layers
import Platform
import Tensors
import Traces
import Training

/// A run of a batch through a model, with all its numbers: forward, backward and one step of AdamW, which leaves the model as it was.
///
/// The numbers lie in a trace file, which nobody else sees and which is gone with the run; in memory is what somebody asks for.
public final class RecordedRun<B: Backend>: RunValues {
  /// The batch.
  public let batch: TraceBatch
  /// The names of its tensors in the order of the run.
  public let names: [String]
  /// The first tensor with a value that is not finite; nil if there is none.
  public let firstNonFinite: String?
  /// The settings of AdamW.
  public let optimizer: OptimizerNumbers
  private let decoder: Decoder<B>
  private let backend: B
  private let provenances: Provenances<B>
  private let file: TraceFile
  private var weightValues: [String: [Double]] = [:]
  private var rows: [String: [Double]] = [:]

  /// Runs.
  ///
  /// - Parameters:
  ///   - patches: numbers to put in on the way.
  ///   - folder: where the file lies, which has no name any more when the run is there.
  /// - Throws: what the device reports, `PatchError`, and `CheckpointError` if the file cannot be written.
  public init(
    _ decoder: Decoder<B>, _ batch: TraceBatch, patches: [Patch] = [], optimizer: OptimizerNumbers = OptimizerNumbers(),
    in folder: String, on backend: B
  ) throws {
    (self.decoder, self.batch, self.backend, self.optimizer) = (decoder, batch, backend, optimizer)
    provenances = try Provenances(decoder, hasBaseRows: batch.adapters.contains(nil))
    var request = TraceRequest()
    request.activations = { _ in true }
    request.backward = batch.hasLabels && !decoder.trained.isEmpty
    request.steps = request.backward ? 1 : 0
    let kept = decoder.trained.map { part in
      backend.fill(0, &part.arena.gradients)
      return backend.copy(part.arena.values)
    }
    var step = AdamW(
      request.backward ? decoder.parameters : [], learningRate: optimizer.learningRate, weightDecay: optimizer.weightDecay, on: backend)
    defer {
      for (part, values) in zip(decoder.trained, kept) {
        backend.copy(values, into: &part.arena.values)
        backend.fill(0, &part.arena.gradients)
      }
    }
    let path = "\(folder)/.mixlora-step-\(POSIX.processID)-\(UInt64.random(in: 0...UInt64.max))"
    let summary = try TraceFile.record(
      decoder, batch, request, to: path, patches: patches, on: backend, moments: { step.moments(of: $0) }, update: { step.step($0) })
    firstNonFinite = summary.firstNonFinite
    defer { try? POSIX.removeFile(path) }
    file = try TraceFile(path: path)
    names = file.names
  }

  /// Where a tensor comes from; nil for a name that the run does not have.
  public func provenance(of name: String) -> Provenance? { file.shape(of: name) == nil ? nil : provenances[name] }
  /// The sizes of a tensor of the run.
  public func shape(of name: String) -> [Int]? { file.shape(of: name) }
  /// Some numbers of a tensor of the run.
  public func values(of name: String, in range: Range<Int>) -> [Double] {
    if range.isEmpty { return [] }
    do { return try file.values(of: name, in: range) } catch { trap("\(name): \(error)") }
  }

  // MARK: Weights

  /// The sizes of a weight.
  public func weightShape(_ name: String) -> [Int]? {
    if let tensor = provenances.trained[name] { return tensor.view(of: tensor.parameter.value).shape.sizes }
    return provenances.weights[name].map { $0.shape.sizes }
  }

  /// A row of a weight; of a vector all of it.
  public func weightRow(_ name: String, _ row: Int) throws -> [Double] {
    if let whole = try trainedValues(name), let shape = weightShape(name) {
      return shape.count == 1 ? whole : Array(whole[row * shape[1]..<(row + 1) * shape[1]])
    }
    return try kept("\(name)[\(row)]") {
      guard let weight = provenances.weights[name] else { trap("\(name): no weight") }
      if weight.shape.isVector { return backend.vector(weight) }
      return backend.embedding(backend.upload([Int32(row)]), weight.operand)
    }
  }

  /// A column of a weight.
  public func weightColumn(_ name: String, _ column: Int) throws -> [Double] {
    if let whole = try trainedValues(name), let shape = weightShape(name) {
      return stride(from: column, to: whole.count, by: shape[1]).map { whole[$0] }
    }
    return try kept("\(name)[:\(column)]") {
      guard let weight = provenances.weights[name] else { trap("\(name): no weight") }
      var one = [B.Scalar](repeating: 0, count: weight.shape.columns)
      one[column] = 1
      return backend.matmul(backend.upload(one, Shape(1, one.count)), weight.T)  // (1,O)  e_column Wᵀ
    }
  }

  /// cos and sin of a rotary plane at a position.
  public func turn(plane: Int, position: Int) -> (cos: Double, sin: Double) {
    guard let block = provenances.blocks.first else { return (1, 0) }
    return block.attention.layer.rotary.turn(plane: plane, position: position, limit: batch.columns)
  }

  /// A trained tensor comes to the host once.
  private func trainedValues(_ name: String) throws -> [Double]? {
    if let values = weightValues[name] { return values }
    guard let tensor = provenances.trained[name] else { return nil }
    let values = try backend.download(tensor.view(of: tensor.parameter.value)).map { Double($0) }
    weightValues[name] = values
    return values
  }

  private func kept(_ key: String, _ form: () -> Tensor<B>) throws -> [Double] {
    if let values = rows[key] { return values }
    let values = try backend.download(form()).map { Double($0) }
    rows[key] = values
    return values
  }
}
