import JSON

/// Writes a dictionary of tensors as `torch.save` does: a zip archive of stored members, with a pickle that builds tensors and nothing
/// else, which `torch.load(weights_only=True)` reads.
///
///     archive/data.pkl · archive/byteorder · archive/data/0, 1, 2 … · archive/version
public enum PyTorchWriter {
  /// Writes a file.
  ///
  /// - Parameters:
  ///   - path: the file to write or replace (see `AtomicFile`).
  ///   - entries: the tensors, in the order of the dictionary.
  ///   - contents: called once for every tensor, in order; hands the little-endian row-major bytes to `emit`, in one or several pieces.
  /// - Throws: `CheckpointError` if a name stands twice, if a type is none that PyTorch has a storage of, if a tensor emits another number
  ///   of bytes than its entry says, or if the system fails; and what `contents` throws.
  public static func write(
    to path: String, entries: [TensorEntry],
    contents: (_ entry: TensorEntry, _ emit: (UnsafeRawBufferPointer) throws -> Void) throws -> Void
  ) throws {
    try write(to: path, entries: entries, wideFrom: ZipWriter.firstWide, contents: contents)
  }

  /// The same; numbers of the archive from `wide` on are written in zip64 fields.
  static func write(
    to path: String, entries: [TensorEntry], wideFrom wide: Int,
    contents: (_ entry: TensorEntry, _ emit: (UnsafeRawBufferPointer) throws -> Void) throws -> Void
  ) throws {
    let pickle = try PickleWriter.dictionary(of: entries, file: path)
    try AtomicFile.write(to: path) { output in
      var zip = ZipWriter(output, wideFrom: wide)
      try zip.add("archive/data.pkl", pickle)
      try zip.add("archive/byteorder", Array("little".utf8))
      for (number, entry) in entries.enumerated() {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(entry.byteCount)
        try contents(entry) { bytes += $0 }
        guard bytes.count == entry.byteCount else {
          throw CheckpointError(
            file: path, place: .tensor(entry.name), found: "\(bytes.count) bytes to write",
            expected: "\(entry.byteCount) bytes for \(entry.elementType) of shape \(entry.shape)")
        }
        try zip.add("archive/data/\(number)", bytes)
      }
      try zip.add("archive/version", Array("3\n".utf8))
      try zip.finish()
    }
  }
}

/// The pickle of a dictionary of tensors, protocol 2: for each a name and
///
///     torch._utils._rebuild_tensor_v2(("storage", torch.<Type>Storage, "<number>", "cpu", count), 0, size, stride, False, OrderedDict())
private struct PickleWriter {
  private(set) var bytes: [UInt8] = [0x80, 2]  // PROTO 2

  static func dictionary(of entries: [TensorEntry], file: String) throws -> [UInt8] {
    var pickle = PickleWriter()
    var names: Set<ByteKey> = []
    pickle.code("}")  // EMPTY_DICT
    for (number, entry) in entries.enumerated() {
      func error(_ found: String, _ expected: String) -> CheckpointError {
        CheckpointError(file: file, place: .tensor(entry.name), found: found, expected: expected)
      }
      guard names.insert(ByteKey(entry.name)).inserted else { throw error("the name twice", "another name") }
      guard let storage = PickleGlobal.allCases.first(where: { $0.storageType == entry.elementType }) else {
        throw error("\(entry.elementType) to write", "a type that PyTorch has a storage of")
      }
      pickle.string(entry.name)
      pickle.tensor(entry, storage, key: "\(number)")
      pickle.code("s")  // SETITEM
    }
    pickle.code(".")  // STOP
    return pickle.bytes
  }

  private mutating func tensor(_ entry: TensorEntry, _ storage: PickleGlobal, key: String) {
    var (strides, step): ([Int], Int) = ([], 1)
    for size in entry.shape.reversed() {
      strides.insert(step, at: 0)
      step = step &* max(1, size)
    }
    global(.rebuildTensorV2)
    code("(")  // MARK
    code("(")
    string("storage")
    global(storage)
    string(key)
    string("cpu")
    integer(entry.elementCount)
    code("t")  // TUPLE
    code("Q")  // BINPERSID
    integer(0)
    tuple(entry.shape)
    tuple(strides)
    code("\u{89}")  // NEWFALSE: requires no gradient
    global(.orderedDict)
    code(")")  // EMPTY_TUPLE
    code("R")  // REDUCE: no hooks
    code("t")
    code("R")
  }

  private mutating func tuple(_ integers: [Int]) {
    code("(")
    for integer in integers { self.integer(integer) }
    code("t")
  }

  private mutating func global(_ global: PickleGlobal) {
    code("c")  // GLOBAL
    let module = global.module
    bytes += Array(module.utf8) + [10] + global.rawValue.utf8.dropFirst(module.utf8.count + 1) + [10]
  }

  private mutating func string(_ text: String) {
    code("X")  // BINUNICODE
    append(UInt32(text.utf8.count))
    bytes += Array(text.utf8)
  }

  private mutating func integer(_ value: Int) {
    if let small = UInt8(exactly: value) {
      code("K")  // BININT1
      bytes.append(small)
    } else if let word = Int32(exactly: value) {
      code("J")  // BININT
      append(UInt32(bitPattern: word))
    } else {
      code("\u{8A}")  // LONG1
      bytes.append(8)
      append(UInt32(truncatingIfNeeded: value))
      append(UInt32(truncatingIfNeeded: value >> 32))
    }
  }

  private mutating func code(_ opcode: UnicodeScalar) { bytes.append(UInt8(truncatingIfNeeded: opcode.value)) }

  private mutating func append(_ word: UInt32) { for shift in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: word >> (8 * shift))) } }
}
