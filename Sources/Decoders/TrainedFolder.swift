import Checkpoints
import Tensors

/// What training leaves in a folder: the adapter, or where the base weights were trained the whole model.
public enum TrainedFolder: Sendable {
  /// `adapter_model.safetensors` and `adapter_config.json`; see ``AdapterFolder``.
  case adapter(baseModel: String?)
  /// `model.safetensors` beside the files that make it a model of Hugging Face's.
  case model(ModelFolder.Files)

  /// The file that holds the trained tensors.
  public var tensorsFile: String {
    switch self {
    case .adapter: AdapterFolder.tensorsFile
    case .model: ModelFolder.tensorsFile
    }
  }

  /// Writes the trained values of `decoder` into an existing folder.
  ///
  /// - Throws: `CheckpointError` if the folder cannot be written, and what the device reports.
  public func write<B: Backend>(_ decoder: Decoder<B>, to folder: String, on backend: B) throws {
    switch self {
    case .adapter(let baseModel): try AdapterFolder.write(decoder, to: folder, baseModel: baseModel, on: backend)
    case .model(let files): try ModelFolder.write(decoder, beside: files, to: folder, on: backend)
    }
  }
}

extension TrainedTensor {
  /// Writes the values of trained tensors to a safetensors file, float32.
  static func write(_ tensors: [TrainedTensor], to path: String, format: String, on backend: B) throws {
    var byName: [String: TrainedTensor] = [:]
    for tensor in tensors { byName[tensor.name] = tensor }
    let entries = try tensors.map {
      try TensorEntry(name: $0.name, elementType: .float32, shape: $0.view(of: $0.parameter.value).shape.sizes)
    }
    try SafetensorsWriter.write(to: path, entries: entries, metadata: ["format": format]) { entry, emit in
      guard let tensor = byName[entry.name] else { return }
      let values = try backend.download(tensor.view(of: tensor.parameter.value)).map { Float($0) }
      try values.withUnsafeBytes { try emit($0) }
    }
  }
}
