import HostileCases
import Testing

@testable import Checkpoints

/// Four small valid files, damaged in every way of one kind: never a trap, and what is still read is what was there.
@Suite struct SweepTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// A tensor as a user gets it.
  private struct Read: Equatable {
    let entry: TensorEntry
    let bytes: [UInt8]
  }

  private func read(_ source: some TensorSource) throws -> [Read] {
    try source.entries.map { Read(entry: $0, bytes: try source.bytes(of: $0.name)) }
  }

  private func fixture(_ path: String) throws -> [UInt8] {
    let file = try MappedFile(path: "\(HostileCases.folder)/\(path)")
    return try file.bytes(in: 0..<file.size)
  }

  /// Opens `bytes` cut off after every length; returns at which lengths it was read, all of them to the same tensors.
  private func truncate(_ bytes: [UInt8], _ open: ([UInt8]) throws -> [Read]) throws -> [Int] {
    let whole = try open(bytes)
    return bytes.indices.filter { length in
      succeeds {
        let tensors = try open(Array(bytes[..<length]))
        #expect(tensors == whole, "\(length) bytes")
      }
    }
  }

  /// Opens `bytes` with every bit of a range turned over, one at a time; `check` judges what was read. Returns how often that was.
  private func flip(
    _ bytes: [UInt8], in range: Range<Int>, _ open: ([UInt8]) throws -> [Read], check: (_ whole: [Read], _ damaged: [Read]) -> Bool
  ) throws -> Int {
    let whole = try open(bytes)
    return (8 * range.lowerBound..<8 * range.upperBound).count { bit in
      var damaged = bytes
      damaged[bit / 8] ^= 1 << (bit % 8)
      return succeeds {
        let tensors = try open(damaged)
        #expect(check(whole, tensors), "bit \(bit % 8) of byte \(bit / 8)")
      }
    }
  }

  /// A safetensors header has no check value: a bit turned over may rename a tensor, or give it another type or shape of as many
  /// bytes. But as many tensors are left, and in order they are the same bytes.
  private func haveTheSameBytes(_ whole: [Read], _ damaged: [Read]) -> Bool {
    damaged.count == whole.count && damaged.flatMap(\.bytes) == whole.flatMap(\.bytes)
      && damaged.allSatisfy { $0.bytes.count == $0.entry.byteCount }
  }

  private func headerEnd(_ bytes: [UInt8]) -> Int { 8 + Int(bytes[0]) + Int(bytes[1]) << 8 }

  // MARK: A safetensors file

  private func openFile(_ bytes: [UInt8]) throws -> [Read] { try read(Safetensors(path: folder.put("t.safetensors", bytes))) }

  @Test func aSafetensorsFileIsReadAtItsWholeLengthOnly() throws {
    let lengths = try truncate(fixture("safetensors/good.safetensors"), openFile)
    #expect(lengths == [])
  }

  @Test func aBitOfASafetensorsHeaderChangesNoByteOfTheTensors() throws {
    let bytes = try fixture("safetensors/good.safetensors")
    let readable = try flip(bytes, in: 0..<headerEnd(bytes), openFile, check: haveTheSameBytes)
    // Seven bits (the eighth ends the UTF-8) of the 16 characters of the names ids, w, flag and the metadata "format": "pt".
    #expect(readable == 7 * 16)
  }

  // MARK: A folder with an index

  /// Opens a folder of the good index and shards, one of them damaged.
  private func openFolder(_ name: String) throws -> ([UInt8]) throws -> [Read] {
    for name in ["model.safetensors.index.json", "s1.safetensors", "s2.safetensors"] { try folder.put(name, fixture("index/good/\(name)")) }
    return { bytes in
      try folder.put(name, bytes)
      return try read(ShardedCheckpoint.open(folder: folder.path))
    }
  }

  @Test func anIndexAndItsShardAreReadAtTheirWholeLengthOnly() throws {
    for name in ["model.safetensors.index.json", "s1.safetensors"] {
      let lengths = try truncate(fixture("index/good/\(name)"), openFolder(name))
      #expect(lengths == [], "\(name)")
    }
  }

  @Test func aBitOfAnIndexIsAnErrorOrTheSameTensors() throws {
    let name = "model.safetensors.index.json"
    let bytes = try fixture("index/good/\(name)")
    let readable = try flip(bytes, in: bytes.indices, openFolder(name), check: ==)
    // Nobody reads the metadata: seven bits of the characters of total_size, of which one makes a control character, and the three of its
    // digit that leave a digit.
    #expect(readable == 7 * 10 - 1 + 3)
  }

  @Test func aBitOfAShardsHeaderChangesNoNameAndNoByteOfTheTensors() throws {
    let bytes = try fixture("index/good/s1.safetensors")
    let readable = try flip(bytes, in: 0..<headerEnd(bytes), openFolder("s1.safetensors")) { whole, damaged in
      haveTheSameBytes(whole, damaged) && zip(whole, damaged).allSatisfy { $0.entry.name.hasSameBytes(as: $1.entry.name) }
    }
    // The index names the tensors, and no type or shape of this shard is one bit from another of as many bytes.
    #expect(readable == 0)
  }

  // MARK: A PyTorch file

  private func openArchive(_ bytes: [UInt8]) throws -> [Read] { try read(PyTorchFile(path: folder.put("t.bin", bytes))) }

  @Test func aPyTorchFileIsReadAtItsWholeLengthOnly() throws {
    let lengths = try truncate(fixture("pytorch/good.bin"), openArchive)
    #expect(lengths == [])
  }

  /// Of the whole archive, data included: every member has a check value.
  @Test func aBitOfAPyTorchFileIsAnErrorOrTheSameTensors() throws {
    let bytes = try fixture("pytorch/good.bin")
    let readable = try flip(bytes, in: bytes.indices, openArchive, check: ==)
    // For each of five members, versions (2 bytes) and time (4) in its header, and versions (4), time (4) and attributes (6) in the
    // directory: they say nothing about the tensors.
    #expect(readable == 8 * 5 * (2 + 4 + 4 + 4 + 6))
  }

  // MARK: A GGUF file

  private func openGGUF(_ bytes: [UInt8]) throws -> [Read] {
    let file = try GGUF(path: folder.put("t.gguf", bytes))
    for key in file.metadata.keys {  // every value is read too, whatever it became
      guard case .array(let array) = try file.metadata.value(key) else { continue }
      _ = succeeds { _ = try array.strings() }
      _ = succeeds { _ = try array.integers() }
      _ = succeeds { _ = try array.numbers() }
      _ = succeeds { _ = try array.booleans() }
    }
    return try read(file)
  }

  @Test func aGGUFFileIsReadAtItsWholeLengthWithOrWithoutTheLastPadding() throws {
    let bytes = try fixture("gguf/good.gguf")
    // The last tensor is one F32, padded to 32 bytes.
    #expect(try truncate(bytes, openGGUF) == Array(bytes.count - 28..<bytes.count))
  }

  @Test func aBitOfAGGUFHeaderMovesNoTensor() throws {
    let bytes = try fixture("gguf/good.gguf")
    let whole = try GGUF(path: folder.put("t.gguf", bytes))
    let readable = try flip(bytes, in: 0..<bytes.count - 192, openGGUF) { whole, damaged in
      // A name, a type or a shape may change, but what is read lies where it lay, a tensor after the other.
      damaged.count == whole.count && damaged.allSatisfy { $0.bytes.count == $0.entry.byteCount }
        && zip(whole, damaged).allSatisfy { whole, damaged in
          let common = min(whole.bytes.count, damaged.bytes.count)
          return whole.bytes[..<common] == damaged.bytes[..<common]
        }
    }
    #expect(
      readable > 0 && readable < 8 * (bytes.count - 192) / 2,
      "\(readable) of \(8 * (bytes.count - 192)) bits, \(whole.entries.count) tensors")
  }
}
