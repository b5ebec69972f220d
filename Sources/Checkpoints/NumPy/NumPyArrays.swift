import JSON
import Tensors

/// Arrays of NumPy: one `.npy` file, a folder of them, or the `.npz` archive that `numpy.savez` writes.
///
///     "\x93NUMPY" · version (2 bytes) · length of the header (2 bytes, from version 2 on 4) · header · elements
///     {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
///
/// (NEP 1 and `numpy.lib.format`.) An array's name is its file's or member's without `.npy`. Taken are little-endian numbers in C order:
/// f8, f4, f2, integers and booleans, and `V2`, which is what ml_dtypes' bfloat16 is written as. A compressed archive is refused.
public struct NumPyArrays: TensorSource {
  /// The file or folder.
  public let file: String
  /// The arrays in the order of the archive, or of their names.
  public let entries: [TensorEntry]
  private let places: [String: (mapped: MappedFile, range: Range<Int>, number: Int)]

  private static let magic: [UInt8] = [0x93] + Array("NUMPY".utf8)
  private static let suffix = ".npy"

  /// Opens a folder of `.npy` files, an `.npz` archive, or one `.npy` file.
  ///
  /// - Throws: `CheckpointError` naming file and array, what was found and what was expected.
  public init(path: String) throws {
    file = path
    var parts: [(name: String, mapped: MappedFile, range: Range<Int>)] = []
    if MappedFile.isFolder(path) {
      for name in Folder.names(in: path) where name.hasSuffix(Self.suffix) {
        let mapped = try MappedFile(path: "\(path)/\(name)")
        parts.append((String(name.dropLast(Self.suffix.count)), mapped, 0..<mapped.size))
      }
    } else {
      let mapped = try MappedFile(path: path)
      if Self.begins(mapped, with: Self.magic) {
        let name = path.split(separator: "/").last.map(String.init) ?? path
        parts.append((name.hasSuffix(Self.suffix) ? String(name.dropLast(Self.suffix.count)) : name, mapped, 0..<mapped.size))
      } else {
        for member in try ZipArchive(mapped).members {
          guard member.name.hasSuffix(Self.suffix) else {
            throw CheckpointError(file: path, place: .member(member.name), found: "a member of another kind", expected: "\(Self.suffix)")
          }
          parts.append((String(member.name.dropLast(Self.suffix.count)), mapped, member.range))
        }
      }
    }
    var (entries, places): ([TensorEntry], [String: (MappedFile, Range<Int>, Int)]) = ([], [:])
    for (name, mapped, range) in parts {
      let (entry, data) = try Self.array(name, in: mapped, range)
      guard places.updateValue((mapped, data, entries.count), forKey: name) == nil else {
        throw CheckpointError(file: path, place: .tensor(name), found: "it twice", expected: "each array once")
      }
      entries.append(entry)
    }
    (self.entries, self.places) = (entries, places)
  }

  /// Whether a file begins as an `.npy` file does, or is an archive of such members.
  ///
  /// - Throws: `CheckpointError` if it cannot be read.
  public static func isArrays(path: String) throws -> Bool {
    let mapped = try MappedFile(path: path)
    if begins(mapped, with: magic) { return true }
    guard begins(mapped, with: Array("PK".utf8)) else { return false }
    // The first member's name follows 30 bytes of its header.
    guard let length = try? mapped.integer(UInt16.self, at: 26), let name = try? mapped.bytes(in: 30..<30 + Int(length)) else {
      return false
    }
    return String(decoding: name, as: UTF8.self).hasSuffix(suffix)
  }

  /// The array of this name; nil if there is none.
  public func entry(_ name: String) -> TensorEntry? { places[name].map { entries[$0.number] } }

  /// Lends an array's elements; see ``TensorSource/withBytes(of:_:)``.
  public func withBytes<R>(of name: String, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R {
    let entry = try requiredEntry(name)
    guard let place = places[name] else { throw CheckpointError.missingTensor(entry.name, file: file, among: entries.count) }
    return try place.mapped.withBytes(in: place.range, body)
  }

  private static func begins(_ mapped: MappedFile, with bytes: [UInt8]) -> Bool {
    mapped.size >= bytes.count && (try? mapped.bytes(in: 0..<bytes.count)) == bytes
  }

  /// What an array is, and where its elements are.
  private static func array(_ name: String, in mapped: MappedFile, _ range: Range<Int>) throws -> (TensorEntry, Range<Int>) {
    func wrong(_ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: mapped.path, place: .tensor(name), found: found, expected: expected)
    }
    guard range.count >= 10, try mapped.bytes(in: range.lowerBound..<range.lowerBound + 6) == magic else {
      throw wrong("no NumPy array", "the bytes \\x93NUMPY at its beginning")
    }
    let version = try mapped.integer(UInt8.self, at: range.lowerBound + 6)
    guard (1...3).contains(version) else { throw wrong("format version \(version)", "1, 2 or 3") }
    let isShort = version == 1
    guard isShort || range.count >= 12 else { throw wrong("\(range.count) bytes", "a header") }
    let length =
      try isShort
      ? Int(mapped.integer(UInt16.self, at: range.lowerBound + 8)) : Int(mapped.integer(UInt32.self, at: range.lowerBound + 8))
    let begin = range.lowerBound + (isShort ? 10 : 12)
    guard length <= range.upperBound - begin else { throw wrong("a header of \(length) bytes", "at most \(range.upperBound - begin)") }
    let header = try NumPyHeader(mapped.bytes(in: begin..<begin + length)) { wrong($0, $1) }
    let entry: TensorEntry
    do { entry = try TensorEntry(name: name, elementType: header.elementType, shape: header.shape) } catch {
      throw wrong("\(error)", "sizes of an array")
    }
    let data = begin + length..<range.upperBound
    guard data.count == entry.byteCount else { throw wrong("\(data.count) bytes of elements", "\(entry.byteCount), as its shape says") }
    return (entry, data)
  }
}

/// The dictionary in front of an array's elements: a Python literal of three keys.
private struct NumPyHeader {
  let elementType: ElementType
  let shape: [Int]

  private static let types: [String: ElementType] = [
    "<f8": .float64, "<f4": .float32, "<f2": .float16, "<V2": .bfloat16, "|V2": .bfloat16, "|b1": .bool, "|i1": .int8, "|u1": .uint8,
    "<i2": .int16, "<u2": .uint16, "<i4": .int32, "<u4": .uint32, "<i8": .int64, "<u8": .uint64,
  ]

  init(_ bytes: [UInt8], _ error: (_ found: String, _ expected: String) -> CheckpointError) throws {
    let text = String(decoding: bytes, as: UTF8.self)
    func value(_ key: String) throws -> Substring {
      guard let range = text.firstRange(of: "'\(key)':") else { throw error("a header without '\(key)'", "descr, fortran_order and shape") }
      return text[range.upperBound...].drop { $0 == " " }
    }
    let described = try value("descr")
    guard described.first == "'", let end = described.dropFirst().firstIndex(of: "'") else {
      throw error("a structured dtype", "numbers of one type")
    }
    let type = String(described[described.index(after: described.startIndex)..<end])
    guard let elementType = Self.types[type] else {
      throw error("dtype '\(type)'", "little-endian f8, f4, f2, integers, booleans, or bfloat16 as V2")
    }
    guard try value("fortran_order").hasPrefix("False") else {
      throw error("elements in Fortran order", "C order: save numpy.ascontiguousarray(x)")
    }
    let sizes = try value("shape")
    guard sizes.first == "(", let close = sizes.firstIndex(of: ")") else { throw error("a shape that is no tuple", "sizes in parentheses") }
    let parts = sizes[sizes.index(after: sizes.startIndex)..<close].split(separator: ",").map { $0.filter { $0 != " " } }
    let shape = parts.filter { !$0.isEmpty }.compactMap { Int($0) }
    guard shape.count == parts.filter({ !$0.isEmpty }).count else {
      throw error("shape (\(parts.joined(separator: ",")))", "whole numbers")
    }
    (self.elementType, self.shape) = (elementType, shape)
  }
}
