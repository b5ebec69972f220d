import Testing

@testable import Checkpoints

@Suite struct ShardedCheckpointTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// A file of U8 tensors of two bytes each, numbered from `first`.
  private func putShard(_ name: String, _ tensors: [String], first: UInt8 = 0) throws {
    let entries = tensors.enumerated().map { index, name in
      #""\#(name)":{"dtype":"U8","shape":[2],"data_offsets":[\#(2 * index),\#(2 * index + 2)]}"#
    }
    try folder.put(name, safetensors("{\(entries.joined(separator: ","))}", (0..<UInt8(2 * tensors.count)).map { first + $0 }))
  }

  private func putIndex(_ map: KeyValuePairs<String, JSON>, metadata: JSON? = ["total_size": 6]) throws {
    var index = JSON.Object()
    index["metadata"] = metadata
    var weightMap = JSON.Object()
    for (name, shard) in map { weightMap[name] = shard }
    index["weight_map"] = .object(weightMap)
    try folder.put("model.safetensors.index.json", JSON.object(index).serialized())
  }

  private func open() throws -> ShardedCheckpoint { try ShardedCheckpoint.open(folder: folder.path) }

  @Test func theSingleFileIsPreferred() throws {
    try putShard("model.safetensors", ["a", "b"])
    try folder.put("model.safetensors.index.json", "broken")
    let source = try open()
    #expect(source.file == "\(folder.path)/model.safetensors")
    #expect(source.entries.map(\.name) == ["a", "b"])
    #expect(try source.bytes(of: "b") == [2, 3])
  }

  @Test func tensorsAreFoundInTheirShards() throws {
    try putShard("s1", ["a", "c"])
    try putShard("s2", ["b"], first: 10)
    try putIndex(["a": "s1", "b": "s2", "c": "s1"])
    let source = try open()
    #expect(source.file == "\(folder.path)/model.safetensors.index.json")
    #expect(source.shards.count == 2)
    #expect(try source.bytes(of: "a") == [0, 1])
    #expect(try source.bytes(of: "b") == [10, 11])
    #expect(source.entry("d") == nil)
    expectError("index.json", "\"d\"") { try source.bytes(of: "d") }
  }

  /// Writers count whole storages, of which a saved tensor may be a part, and no reader looks at the number.
  @Test func whatTheMetadataOfAnIndexSaysIsNoReasonToRefuseIt() throws {
    try putShard("s1", ["a", "c"])
    try putShard("s2", ["b"], first: 10)
    for metadata: JSON? in [
      nil, .null, [], 3, ["total_size": 7], ["total_size": 6.0], ["total_size": "6"], ["total_size": -1], ["total_parameters": 3],
    ] {
      try putIndex(["a": "s1", "b": "s2", "c": "s1"], metadata: metadata)
      #expect(try open().bytes(of: "b") == [10, 11], "\(metadata?.serialized() ?? "none")")
    }
  }

  /// Pickles are read where there is no safetensors file, alone or sharded.
  @Test func picklesAreReadWhereThereIsNothingElse() throws {
    func put(_ name: String, _ tensors: [String], first: UInt8) throws {
      let entries = try tensors.map { try TensorEntry(name: $0, elementType: .uint8, shape: [2]) }
      try PyTorchWriter.write(to: "\(folder.path)/\(name)", entries: entries) { entry, emit in
        let place = UInt8(tensors.firstIndex(of: entry.name) ?? 0)
        try [first + 2 * place, first + 2 * place + 1].withUnsafeBytes { try emit($0) }
      }
    }
    try put("s1", ["a", "c"], first: 0)
    try put("s2", ["b"], first: 10)
    try folder.put("pytorch_model.bin.index.json", #"{"metadata":{},"weight_map":{"a":"s1","b":"s2","c":"s1"}}"#)
    #expect(try open().shards.count == 2)
    #expect(try open().bytes(of: "b") == [10, 11] && open().bytes(of: "c") == [2, 3])
    try put("pytorch_model.bin", ["b"], first: 20)
    #expect(try open().bytes(of: "b") == [20, 21])
    try putShard("model.safetensors", ["b"], first: 30)
    #expect(try open().bytes(of: "b") == [30, 31])
  }

  @Test func aFolderWithoutWeightsNamesBoth() {
    expectError(folder.path, "neither model.safetensors nor model.safetensors.index.json") { try open() }
    expectError("\(folder.path)/none", "neither") { try ShardedCheckpoint.open(folder: "\(folder.path)/none") }
  }

  @Test(arguments: [
    "/etc/passwd", "../s1", "..", ".", "sub/s1", "", "a\\b", "s1\u{0}", "\u{1B}[2Js1", "\u{202E}s1", String(repeating: "s", count: 256),
  ])
  func aShardOutsideTheFolderIsRefused(shard: String) throws {
    try putShard("s1", ["a"])
    try putIndex(["a": .string(shard)])
    expectError("index.json", "\"a\"", "the shard the string", "same folder") { try open() }
  }

  @Test func indexAndShardsMustAgree() throws {
    try putShard("s1", ["a", "b"])
    try putShard("s2", ["c"])
    try putIndex(["a": "s1", "b": "s1", "c": "s3"])
    expectError("index.json", "no file \"s3\"") { try open() }
    try putIndex(["a": "s1", "b": "s2", "c": "s2"])
    expectError("index.json", "\"b\"", "it in \"s1\"", "it in \"s2\"") { try open() }
    try putIndex(["a": "s1", "b": "s1", "c": "s2", "d": "s2"])
    expectError("index.json", "\"d\"", "no such tensor", "it in \"s2\"") { try open() }
    try putIndex(["a": "s1", "c": "s2"])
    expectError("index.json", "\"b\"", "it in \"s1\" but not in weight_map") { try open() }
    try putShard("s2", ["c", "a"])
    try putIndex(["a": "s1", "b": "s1", "c": "s2"])
    expectError("index.json", "\"a\"", "/s1 and in ", "/s2", "one shard") { try open() }
  }

  @Test(arguments: [
    ("[]", "an array of 0", "weight_map"), ("{}", "weight_map", "nothing"), (#"{"weight_map":3}"#, "weight_map", "found 3"),
    (#"{"weight_map":{},"other":1}"#, "other", "unknown key"), (#"{"weight_map":{"a":1}}"#, "\"a\"", "the shard 1"),
    ("{", "byte 1", "the end of the text"),
  ])
  func aMalformedIndexIsNamed(text: String, place: String, found: String) throws {
    try folder.put("model.safetensors.index.json", text)
    expectError("model.safetensors.index.json", place, found) { try open() }
  }
}
