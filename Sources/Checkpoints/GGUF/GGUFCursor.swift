import JSON

/// Walks through the header of a GGUF file; every step is checked against the rest of the file.
struct GGUFCursor {
  let file: MappedFile
  private(set) var offset: Int

  init(_ file: MappedFile, at offset: Int = 0) {
    self.file = file
    self.offset = offset
  }

  /// Bytes from here to the end of the file.
  var remaining: Int { file.size - offset }

  /// The next number; `what` names it for the message.
  mutating func integer<T: FixedWidthInteger>(_: T.Type, _ what: @autoclosure () -> String) throws -> T {
    let width = MemoryLayout<T>.size
    guard remaining >= width else {
      throw error(at: offset, found: "\(remaining) more bytes", "\(width) bytes of \(what()); the file is cut off")
    }
    defer { offset += width }
    return try file.integer(T.self, at: offset)
  }

  /// Steps over `count` things of `width` bytes each.
  mutating func skip(_ count: Int, each width: Int, _ what: @autoclosure () -> String) throws -> Range<Int> {
    guard count <= remaining / width else {
      throw error(
        at: offset, found: "\(remaining) more bytes", "\(count) × \(width) bytes of \(what()); the file may be cut off")
    }
    defer { offset += count * width }
    return offset..<(offset + count * width)
  }

  /// Steps over a string; returns where its bytes are.
  mutating func skipString(_ what: @autoclosure () -> String, atMost limit: Int = GGUF.maximumLength) throws -> Range<Int> {
    let start = offset
    let length = try integer(UInt64.self, "the length of \(what())")
    guard length <= UInt64(limit) else {
      throw error(at: start, found: "a length of \(length) of \(what())", "at most \(limit)")
    }
    guard length <= UInt64(remaining) else {
      throw error(
        at: start, found: "a length of \(length) of \(what())", "at most the \(remaining) bytes that are left; the file may be cut off")
    }
    return try skip(Int(length), each: 1, what())
  }

  /// The bytes of the next string.
  mutating func string(_ what: @autoclosure () -> String, atMost limit: Int) throws -> [UInt8] {
    try file.bytes(in: skipString(what(), atMost: limit))
  }

  func error(at offset: Int, found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file.path, place: .byte(offset), found: found, expected: expected)
  }
}

/// What the header of a GGUF file says about one tensor.
struct GGUFTensorInfo {
  let entry: TensorEntry
  let offset: UInt64

  /// string name · u32 axes · axes × u64 size · u32 type · u64 offset
  init(_ cursor: inout GGUFCursor) throws {
    let start = cursor.offset
    let nameBytes = try cursor.string("a tensor's name", atMost: GGUF.maximumNameLength)
    guard !nameBytes.isEmpty, firstInvalidUTF8(in: nameBytes) == nil else {
      throw cursor.error(
        at: start, found: nameBytes.isEmpty ? "an empty name of a tensor" : "a name of a tensor that is not UTF-8", "a name in UTF-8")
    }
    let name = String(decoding: nameBytes, as: UTF8.self)
    let path = cursor.file.path
    func failure(_ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: path, place: .tensor(name), found: found, expected: expected)
    }
    let axes = try cursor.integer(UInt32.self, "the number of axes of \(quoted(name))")
    guard axes <= UInt32(GGUF.maximumAxes) else { throw failure("\(axes) axes", "at most \(GGUF.maximumAxes)") }
    var shape: [Int] = []
    for axis in 0..<axes {
      let bits = try cursor.integer(UInt64.self, "size \(axis) of \(quoted(name))")
      guard let size = Int(exactly: bits), size >= 1 else {
        throw failure(
          bits == 0 ? "size 0 of axis \(axis)" : "size \(Int64(bitPattern: bits)) of axis \(axis)", "a size from 1 to \(Int.max)")
      }
      shape.insert(size, at: 0)  // the file has the innermost first
    }
    let code = try cursor.integer(UInt32.self, "the type of \(quoted(name))")
    guard let type = ElementType(ggml: code) else {
      let known = Self.unbuiltTypes[code].map { "type \(code), \($0)" } ?? "the unknown type \(code)"
      throw failure(
        known,
        "F32, F16, BF16, F64, Q2_K to Q6_K, Q4_0 to Q5_1, Q8_0 or an integer type"
          + (Self.unbuiltTypes[code] == nil ? "" : "; others are not built yet"))
    }
    offset = try cursor.integer(UInt64.self, "the offset of \(quoted(name))")
    do {
      entry = try TensorEntry(name: name, elementType: type, shape: shape)
    } catch {
      throw failure(error.description, "whole blocks that fit into the file")
    }
  }

  func error(_ found: String, _ expected: String, in file: MappedFile) -> CheckpointError {
    CheckpointError(file: file.path, place: .tensor(entry.name), found: found, expected: expected)
  }

  /// ggml's other types, for the message. (4, 5, 31 to 33 and 36 to 38 were removed.)
  private static let unbuiltTypes: [UInt32: String] = [
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
  ]
}

extension ElementType {
  /// The type that ggml gives this number; nil for one that is not read.
  init?(ggml code: UInt32) {
    switch code {
    case 0: self = .float32
    case 1: self = .float16
    case 2: self = .float(.q4_0)
    case 3: self = .float(.q4_1)
    case 6: self = .float(.q5_0)
    case 7: self = .float(.q5_1)
    case 8: self = .float(.q8_0)
    case 10: self = .float(.q2_K)
    case 11: self = .float(.q3_K)
    case 12: self = .float(.q4_K)
    case 13: self = .float(.q5_K)
    case 14: self = .float(.q6_K)
    case 24: self = .int8
    case 25: self = .int16
    case 26: self = .int32
    case 27: self = .int64
    case 28: self = .float64
    case 30: self = .bfloat16
    default: return nil
    }
  }
}
