import JSON

/// The weights of a model folder, the first that there is of these, as transformers looks for them: `model.safetensors`, the shards
/// that `model.safetensors.index.json` names, `pytorch_model.bin`, the shards that `pytorch_model.bin.index.json` names.
///
///     { "metadata": {"total_size": bytes, …}, "weight_map": {tensor: shard file, …} }
///
/// The index and the shards must agree on every tensor, so that nothing is read from another place than the index says and nothing is
/// left out. What stands under `metadata` is not read: writers count whole storages there, of which a tensor may be a part.
public struct ShardedCheckpoint: TensorSource {
  /// The single file, or the index.
  public let file: String
  /// The tensors, shard by shard in the order in which the index first names them.
  public var entries: [TensorEntry] { table.entries }
  /// The files, in that order.
  public let shards: [any TensorSource]

  /// Each tensor with the position of its shard.
  private let table: TensorTable<Int>

  /// Opens the weights of a folder.
  ///
  /// - Throws: `CheckpointError` if there is none of the files, if a shard's path leaves the folder or is missing, if index and
  ///   shards disagree on a tensor, and for everything that ``Safetensors`` and ``PyTorchFile`` refuse.
  public static func open(folder: String) throws -> ShardedCheckpoint {
    let names = ["model.safetensors", "pytorch_model.bin"]
    for name in names {
      let single = "\(folder)/\(name)"
      if try MappedFile.exists(single) { return try ShardedCheckpoint(file: single, shards: [open(single, of: single)]) }
      if try MappedFile.exists(single + ".index.json") { return try ShardedCheckpoint(folder: folder, index: single + ".index.json") }
    }
    throw CheckpointError(
      file: folder, found: "neither \(names[0]) nor \(names[0]).index.json, \(names[1]) or \(names[1]).index.json",
      expected: "one of them")
  }

  /// A shard, whose own name may be any: what it is, the name of the index or single file says.
  private static func open(_ shard: String, of file: String) throws -> any TensorSource {
    file.hasSuffix(".bin") || file.hasSuffix(".bin.index.json") ? try PyTorchFile(path: shard) : try Safetensors(path: shard)
  }

  /// Opens the shards that an index names, which lie beside it.
  ///
  /// - Parameter index: the path of a `….safetensors.index.json` or `….bin.index.json`.
  /// - Throws: as `open(folder:)`.
  public static func open(index: String) throws -> ShardedCheckpoint {
    let folder = index.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(index[..<$0]) }
    return try ShardedCheckpoint(folder: folder ?? ".", index: index)
  }

  /// The tensor of this name, compared by bytes; nil if there is none.
  public func entry(_ name: String) -> TensorEntry? { table[name]?.entry }

  /// Lends a tensor's bytes, straight from the mapped shard.
  ///
  /// - Throws: `CheckpointError` if there is no such tensor, and what `body` throws.
  public func withBytes<R>(of name: String, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R {
    try shards[table.find(name, in: file).payload].withBytes(of: name, body)
  }

  private init(folder: String, index: String) throws {
    let weightMap = try Self.weightMap(index: index)
    var shardNames: [String] = []
    var seen: Set<ByteKey> = []
    for member in weightMap.members {
      let shard = try Self.shardName(member, in: index)
      if seen.insert(ByteKey(shard)).inserted { shardNames.append(shard) }
    }
    let shards = try shardNames.map { name in
      let path = "\(folder)/\(name)"
      guard try MappedFile.exists(path) else {
        throw CheckpointError(file: index, found: "no file \(quoted(name)) beside it", expected: "every shard that weight_map names")
      }
      return try Self.open(path, of: index)
    }
    try self.init(file: index, shards: shards)

    // Which tensor is where, from both sides.
    for member in weightMap.members {
      let named = member.value.stringValue ?? ""
      guard let found = table[member.key] else {
        throw CheckpointError(
          file: index, place: .tensor(member.key), found: "no such tensor in any shard", expected: "it in \(quoted(named))")
      }
      guard shardNames[found.payload].hasSameBytes(as: named) else {
        throw CheckpointError(
          file: index, place: .tensor(member.key), found: "it in \(quoted(shardNames[found.payload]))", expected: "it in \(quoted(named))")
      }
    }
    for (entry, shard) in zip(table.entries, table.payloads) where weightMap[entry.name] == nil {
      throw CheckpointError(
        file: index, place: .tensor(entry.name), found: "it in \(quoted(shardNames[shard])) but not in weight_map",
        expected: "every tensor of a shard to be named")
    }
  }

  /// Merges the tables of the shards.
  private init(file: String, shards: [any TensorSource]) throws {
    var table = TensorTable<Int>()
    for (position, shard) in shards.enumerated() {
      for entry in shard.entries {
        if let other = table.insert(entry, position) {
          throw CheckpointError(
            file: file, place: .tensor(entry.name), found: "it in \(shards[other].file) and in \(shard.file)", expected: "it in one shard")
        }
      }
    }
    self.file = file
    self.shards = shards
    self.table = table
  }

  private static func weightMap(index: String) throws -> JSON.Object {
    func failure(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: index, place: .key(key), found: found, expected: expected)
    }
    let root = try JSON(contentsOf: index)
    guard case .object(let object) = root else {
      throw CheckpointError(file: index, found: root.summary, expected: "an object with weight_map")
    }
    for key in object.keys where !["metadata", "weight_map"].contains(key) {
      throw failure(key, "an unknown key", "only metadata and weight_map")
    }
    guard let weightMap = object["weight_map"]?.objectValue else {
      throw failure("weight_map", object["weight_map"]?.summary ?? "nothing", "an object of tensor names and shard files")
    }
    return weightMap
  }

  /// A shard's file name, which must lie in the folder itself.
  private static func shardName(_ member: JSON.Object.Member, in index: String) throws -> String {
    // Control characters would reach a terminal within the paths of messages, and no system has longer names.
    guard let name = member.value.stringValue, !name.isEmpty, name != ".", name != "..", name.utf8.count <= 255,
      !name.unicodeScalars.contains(where: {
        $0 == "/" || $0 == "\\" || $0.properties.generalCategory == .control || $0.properties.generalCategory == .format
      })
    else {
      throw CheckpointError(
        file: index, place: .tensor(member.key), found: "the shard \(member.value.summary)",
        expected: "the name of a file in the same folder, without any path")
    }
    return name
  }
}
