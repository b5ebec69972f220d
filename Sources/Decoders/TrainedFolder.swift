import Checkpoints
import Tensors

/// What training leaves in a folder: the adapter, or where the base weights were trained the whole model.
public enum TrainedFolder: Sendable {
  /// `adapter_model.safetensors` and `adapter_config.json`; see ``AdapterFolder``.
  case adapter(baseModel: String?)
  /// `model.safetensors` beside the files that make it a model of Hugging Face's.
  case model(ModelFolder)

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
    case .model(let model): try model.write(decoder, to: folder, on: backend)
    }
  }
}

/// The files of a Hugging Face folder that are no tensors: `config.json`, the tokenizer's, and what else describes a model.
public struct ModelFolder: Sendable {
  static let tensorsFile = "model.safetensors"
  /// `config.json` last: it is what makes a folder a model.
  private static let names = [
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "chat_template.json", "generation_config.json", "config.json",
  ]
  private let files: [(name: String, bytes: [UInt8])]

  /// Takes these files of `folder` as they are, byte for byte; those that are not there are left out.
  ///
  /// They are read at once, so that a checkpoint hours later still has them.
  /// - Throws: `CheckpointError` if one cannot be read, or if there is no `config.json`.
  public init(of folder: String) throws {
    files = try Self.names.compactMap { name in
      do {
        let file = try MappedFile(path: "\(folder)/\(name)")
        return (name, try file.bytes(in: 0..<file.size))
      } catch let error as CheckpointError where error.isMissingFile && name != "config.json" {
        return nil
      }
    }
  }

  /// Files that were made, `config.json` last.
  public init(_ files: [(name: String, json: JSON)]) {
    self.files = files.map { ($0.name, Array(($0.json.serialized(.indented(2)) + "\n").utf8)) }
  }

  /// Writes `model.safetensors`, float32, with Hugging Face's names (a tied head once, as the embedding), and the files beside it.
  ///
  /// - Throws: `CheckpointError` if the folder cannot be written, and what the device reports.
  public func write<B: Backend>(_ decoder: Decoder<B>, to folder: String, on backend: B) throws {
    try TrainedTensor.write(decoder.trainedTensors, to: "\(folder)/\(Self.tensorsFile)", format: "pt", on: backend)
    for file in files { try AtomicFile.write(file.bytes, to: "\(folder)/\(file.name)") }
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
