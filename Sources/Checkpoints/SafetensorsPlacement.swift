/// An entry of the header, its parts of the right types but not yet held against each other.
struct SafetensorsPlacement {
  let name: String
  let elementType: ElementType
  let shape: [Int]
  let begin: Int
  let end: Int

  init(_ member: JSON.Object.Member, in file: String) throws {
    func failure(_ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: file, place: .tensor(member.key), found: found, expected: expected)
    }
    guard case .object(let fields) = member.value else {
      throw failure(member.value.summary, "an object with dtype, shape and data_offsets")
    }
    let known = ["dtype", "shape", "data_offsets"]
    for key in fields.keys where !known.contains(key) {
      throw failure("the key \(quoted(key))", "only dtype, shape and data_offsets")
    }
    func field(_ key: String) throws -> JSON {
      guard let value = fields[key] else { throw failure("no \(key)", "dtype, shape and data_offsets") }
      return value
    }
    func sizes(_ key: String) throws -> [Int] {
      let value = try field(key)
      guard let elements = value.arrayValue else { throw failure("\(key) \(value.summary)", "an array of integers") }
      return try elements.map { element in
        guard let size = element.intValue, size >= 0 else {
          throw failure("\(element.summary) in \(key)", "an integer from 0 to \(Int.max)")
        }
        return size
      }
    }
    let dtype = try field("dtype")
    guard let elementType = dtype.stringValue.flatMap(ElementType.init(rawValue:)), !elementType.isQuantised else {
      throw failure("dtype \(dtype.summary)", "one of " + ElementType.safetensors.map(\.rawValue).joined(separator: " "))
    }
    let offsets = try sizes("data_offsets")
    guard offsets.count == 2 else { throw failure("\(offsets.count) data_offsets", "two, [begin, end]") }
    self.name = member.key
    self.elementType = elementType
    self.shape = try sizes("shape")
    self.begin = offsets[0]
    self.end = offsets[1]
  }

  /// The entry, if it begins at the end of its predecessor and is as long as its shape says.
  func entry(after previousEnd: Int, in file: String) throws -> TensorEntry {
    func failure(_ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: file, place: .tensor(name), found: found, expected: expected)
    }
    let offsets = "data_offsets [\(begin), \(end)]"
    guard begin <= previousEnd else {
      throw failure("\(offsets) after a hole of \(begin - previousEnd) bytes", "a tensor that begins at \(previousEnd)")
    }
    guard begin == previousEnd else {
      throw failure("\(offsets), an overlap of \(previousEnd - begin) bytes", "a tensor that begins at \(previousEnd)")
    }
    guard end >= begin else { throw failure("\(offsets), which end before they begin", "begin ≤ end") }
    let entry: TensorEntry
    do {
      entry = try TensorEntry(name: name, elementType: elementType, shape: shape)
    } catch {
      throw failure(error.description, "a shape of whole bytes that fits into the file")
    }
    guard end - begin == entry.byteCount else {
      throw failure("\(offsets), that is \(end - begin) bytes", "\(entry.byteCount) bytes for \(elementType) of shape \(shape)")
    }
    return entry
  }
}
