extension TensorSource {
  /// The elements of an integer tensor, in row-major order, each widened exactly.
  ///
  /// Taken are I64, I32, I16, I8, U32, U16, U8 and BOOL; U64 is not, since half of its values do not fit.
  /// - Throws: `CheckpointError` naming tensor and element type for any other type, and naming the index of a BOOL that is neither
  ///   0 nor 1.
  /// - Complexity: O(elements).
  public func int64s(of name: String) throws -> [Int64] {
    let entry = try requiredEntry(name)
    return try withBytes(of: name) { bytes in
      switch entry.elementType {
      case .int64: integers(Int64.self, in: bytes)
      case .int32: integers(Int32.self, in: bytes)
      case .int16: integers(Int16.self, in: bytes)
      case .int8: integers(Int8.self, in: bytes)
      case .uint32: integers(UInt32.self, in: bytes)
      case .uint16: integers(UInt16.self, in: bytes)
      case .uint8: integers(UInt8.self, in: bytes)
      case .bool: try booleans(in: bytes, of: name)
      default:
        throw CheckpointError(
          file: file, place: .tensor(name), found: "dtype \(entry.elementType)",
          expected: "an integer dtype (I64, I32, I16, I8, U32, U16, U8 or BOOL)")
      }
    }
  }

  private func integers<T: FixedWidthInteger>(_: T.Type, in bytes: UnsafeRawBufferPointer) -> [Int64] {
    stride(from: 0, to: bytes.count, by: MemoryLayout<T>.size).map { offset in
      Int64(T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self)))
    }
  }

  private func booleans(in bytes: UnsafeRawBufferPointer, of name: String) throws -> [Int64] {
    if let index = bytes.firstIndex(where: { $0 > 1 }) {
      throw CheckpointError(file: file, place: .tensor(name), found: "\(bytes[index]) at index \(index)", expected: "BOOL elements 0 or 1")
    }
    return bytes.map(Int64.init)
  }
}
