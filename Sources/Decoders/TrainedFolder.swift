import Checkpoints
import Tensors

/// What training leaves in a folder: the adapter, or where the base weights were trained the whole model.
public enum TrainedFolder: Sendable {
  /// `adapter_model.safetensors` and `adapter_config.json` of the adapter of that number; see ``AdapterFolder``.
  case adapter(_ number: Int = 0, baseModel: String?)
  /// `model.safetensors` beside the files that make it a model of Hugging Face's.
  case model(ModelFolder.Files)

  /// The file that holds the trained tensors.
  public var tensorsFile: String {
    switch self {
    case .adapter: AdapterFolder.tensorsFile
    case .model: ModelFolder.tensorsFile
    }
  }

  /// What of a model is in the folder.
  ///
  /// - Precondition: it is trained.
  public func part<B: Backend>(of decoder: Decoder<B>) -> TrainedPart<B> {
    if case .adapter(let number, _) = self { return decoder.adapters[number].trained }
    guard let base = decoder.base else { trap("TrainedFolder: the base is frozen") }
    return base
  }

  /// Writes the trained values of `decoder` into an existing folder.
  ///
  /// - Throws: `NonFiniteValue` for a value that is not finite, before anything is written; `CheckpointError` if the folder cannot be
  ///   written, and what the device reports.
  public func write<B: Backend>(_ decoder: Decoder<B>, to folder: String, on backend: B) throws {
    switch self {
    case .adapter(let number, let baseModel):
      try AdapterFolder.write(decoder.adapters[number], to: folder, baseModel: baseModel, on: backend)
    case .model(let files): try ModelFolder.write(decoder, beside: files, to: folder, on: backend)
    }
  }
}

extension TrainedPart {
  /// Writes the values of all tensors to a safetensors file, float32. Each parameter comes to the host once, whatever parts it has.
  ///
  /// - Throws: `NonFiniteValue` naming the first parameter with a value that is not finite; there is no file then.
  func write(to path: String, format: String, on backend: B) throws {
    var byName: [String: TrainedTensor<B>] = [:]
    for tensor in tensors { byName[tensor.name] = tensor }
    let entries = try tensors.map {
      try TensorEntry(name: $0.name, elementType: .float32, shape: $0.view(of: $0.parameter.value).shape.sizes)
    }
    // Parts of two parameters alternate: an expert's A, its B.
    var recent: [(parameter: Parameter<B>, values: [Float])] = []
    try SafetensorsWriter.write(to: path, entries: entries, metadata: ["format": format]) { entry, emit in
      guard let tensor = byName[entry.name] else { return }
      if !recent.contains(where: { $0.parameter === tensor.parameter }) {
        let values = try backend.download(tensor.parameter.value).map { Float($0) }
        // A step of a finite gradient may still be too large: what it left is nothing to go on from.
        guard values.allSatisfy(\.isFinite) else {
          throw NonFiniteValue(
            tensor.parameter.name, at: path, "has a value that is not finite and nothing is saved; lower the learning rate")
        }
        recent = recent.suffix(1) + [(tensor.parameter, values)]
      }
      guard let whole = recent.first(where: { $0.parameter === tensor.parameter })?.values else { return }
      try tensor.part(of: whole).withUnsafeBytes { try emit($0) }
    }
  }
}

extension TrainedTensor {
  /// This tensor's part of the row-major values of the whole parameter.
  fileprivate func part(of whole: [Float]) -> [Float] {
    let view = view(of: parameter.value)
    let first = view.offset - parameter.value.offset
    if view.isContiguous { return Array(whole[first..<first + view.shape.count]) }
    return (0..<view.rowCount).flatMap { row in whole[first + row * view.rowStride..<first + row * view.rowStride + view.columnCount] }
  }
}
