import JSON

/// A state dict in PyTorch's zip format (`torch.save` since 1.6): `.bin`, `.pt`, `.pth`.
///
///     <root>/data.pkl     names, shapes, strides: a pickle, read as data only (see `Pickle`)
///     <root>/data/<key>   the bytes of one storage
///     <root>/version      3
///     <root>/byteorder    little (newer files)
///
/// The pickle must be a `dict` or `OrderedDict` from names to tensors or `Parameter`s. Views need not be contiguous, and several
/// tensors may share a storage.
public struct PyTorchFile: TensorSource {
  /// The path of the file.
  public var file: String { mapped.path }
  /// The tensors, in the order of the dictionary.
  public var entries: [TensorEntry] { table.entries }
  /// The names of tensors that read the same storage (tied weights), in groups of two and more.
  public let tiedNames: [[String]]

  private let mapped: MappedFile
  private let table: TensorTable<Location>

  /// A tensor's bytes: a view of the storage in this range of the file.
  private struct Location: Sendable {
    let storage: Range<Int>
    let view: StridedView
  }

  /// The most bytes that a view may have beyond those of its storage: an expanded tensor repeats elements at no cost in the file.
  private static let maximumExpandedBytes = 1 << 28
  private static let maximumPickleLength = 1 << 28

  /// Opens a file and checks all of it, including the check values of the data.
  ///
  /// - Throws: `CheckpointError` naming the file, the member or tensor, and the offending numbers.
  /// - Complexity: O(file).
  public init(path: String) throws {
    let mapped = try MappedFile(path: path)
    try Self.requireZip(mapped)
    let members = try PyTorchMembers(ZipArchive(mapped))
    let pickle = try Pickle(
      Self.bytes(of: members.pickle, upTo: Self.maximumPickleLength, in: mapped), file: path, member: members.pickle.name)
    guard let items = pickle.items(of: pickle.root) else {
      throw CheckpointError(
        file: path, place: .member(members.pickle.name), found: pickle.root.kind, expected: "a dictionary of tensors (a state dict)")
    }

    var table = TensorTable<Location>()
    var readers: [(storage: PickleStorage, names: [String])] = []
    var readerIndices: [ByteKey: Int] = [:]  // by storage key
    for item in items {
      guard case .string(let name) = item.key else {
        throw CheckpointError(
          file: path, place: .member(members.pickle.name), found: "\(item.key.kind) as a key", expected: "the name of a tensor")
      }
      guard let tensor = pickle.tensor(item.value) else {
        throw CheckpointError(
          file: path, place: .key(name), found: item.value.kind, expected: "a tensor; save the state dict alone, without anything around it"
        )
      }
      let (entry, location) = try Self.resolve(tensor, name, members, in: mapped)
      guard table.insert(entry, location) == nil else {
        throw CheckpointError(file: path, place: .tensor(name), found: "the name twice", expected: "each name once")
      }
      let index = readerIndices[ByteKey(tensor.storage.key), default: readers.count]
      if index == readers.count {
        readerIndices[ByteKey(tensor.storage.key)] = index
        readers.append((tensor.storage, []))
      }
      guard readers[index].storage == tensor.storage else {
        throw CheckpointError(
          file: path, place: .tensor(name), found: "storage \(quoted(tensor.storage.key)) with another type or size than before",
          expected: "one type and size for each storage")
      }
      readers[index].names.append(name)
    }
    for (key, member) in members.storages where readerIndices[key] == nil {
      throw CheckpointError(file: path, place: .member(member.name), found: "a storage that no tensor reads", expected: "none left over")
    }
    self.mapped = mapped
    self.table = table
    self.tiedNames = readers.map(\.names).filter { $0.count > 1 }
  }

  /// The tensor of this name, compared by bytes; nil if there is none.
  public func entry(_ name: String) -> TensorEntry? { table[name]?.entry }

  /// Lends a tensor's bytes: straight from the mapped file if they are contiguous there, else from a contiguous copy.
  ///
  /// - Throws: `CheckpointError` if there is no such tensor, and what `body` throws.
  public func withBytes<R>(of name: String, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R {
    let (entry, location) = try table.find(name, in: file)
    let elementSize = entry.elementType.blockBits / 8
    if entry.elementCount == 0 { return try body(UnsafeRawBufferPointer(start: nil, count: 0)) }
    if location.view.isContiguous {
      let start = location.storage.lowerBound + location.view.offset * elementSize
      return try mapped.withBytes(in: start..<(start + entry.byteCount), body)
    }
    let copy = try mapped.withBytes(in: location.storage) {
      location.view.gather(from: $0, elementSize: elementSize, count: entry.elementCount)
    }
    return try copy.withUnsafeBytes(body)
  }

  private static func requireZip(_ mapped: MappedFile) throws {
    let start = try mapped.bytes(in: 0..<min(4, mapped.size))
    if start == Array("PK\u{3}\u{4}".utf8) { return }
    throw CheckpointError(
      file: mapped.path, place: .byte(0), found: start.isEmpty ? "an empty file" : "the bytes \(start)",
      expected: "a zip archive as torch.save writes it since version 1.6"
        + (start.first == 0x80 ? "; load this older file in PyTorch and save it again" : ""))
  }

  private static func bytes(of member: ZipArchive.Member, upTo limit: Int, in mapped: MappedFile) throws -> [UInt8] {
    guard member.range.count <= limit else {
      throw CheckpointError(
        file: mapped.path, place: .member(member.name), found: "\(member.range.count) bytes", expected: "at most \(limit)")
    }
    return try mapped.bytes(in: member.range)
  }

  /// Checks a tensor against its storage.
  private static func resolve(
    _ tensor: PickleTensor, _ name: String, _ members: PyTorchMembers, in mapped: MappedFile
  ) throws -> (TensorEntry, Location) {
    func failure(_ found: String, _ expected: String) -> CheckpointError {
      CheckpointError(file: mapped.path, place: .tensor(name), found: found, expected: expected)
    }
    let storage = tensor.storage
    guard let member = members.storages[ByteKey(storage.key)] else {
      throw failure("no member for its storage \(quoted(storage.key))", "\(quoted(members.root + "/data/" + storage.key))")
    }
    let elementSize = tensor.elementType.blockBits / 8
    // An untyped storage counts bytes.
    let (storageBytes, overflow) = storage.count.multipliedReportingOverflow(by: storage.elementType == nil ? 1 : elementSize)
    guard !overflow, storageBytes == member.range.count else {
      throw failure(
        "storage \(quoted(storage.key)) of \(storage.count) \(storage.elementType?.rawValue ?? "bytes") in \(member.range.count) bytes",
        overflow ? "a size within 2^63" : "\(storageBytes) bytes")
    }
    let entry: TensorEntry
    do {
      entry = try TensorEntry(name: name, elementType: tensor.elementType, shape: tensor.shape)
    } catch {
      throw failure(error.description, "a shape that fits into the file")
    }
    guard tensor.strides.count == tensor.shape.count else {
      throw failure("\(tensor.strides.count) strides for shape \(tensor.shape)", "one stride for each axis")
    }
    let count = storageBytes / elementSize
    let view = StridedView(offset: tensor.offset, shape: tensor.shape, strides: tensor.strides)
    guard let end = view.end, end <= count else {
      throw failure(
        "offset \(view.offset), shape \(view.shape), strides \(view.strides)",
        "a view within the \(count) elements of storage \(quoted(storage.key))")
    }
    guard entry.byteCount <= max(storageBytes, maximumExpandedBytes) else {
      throw failure(
        "shape \(view.shape), strides \(view.strides): \(entry.byteCount) bytes expanded from \(storageBytes)",
        "at most \(maximumExpandedBytes) bytes from a view that repeats elements; save it contiguous")
    }
    return (entry, Location(storage: member.range, view: view))
  }
}

/// The members of the archive by what they are for.
struct PyTorchMembers {
  let root: String
  let pickle: ZipArchive.Member
  let storages: [ByteKey: ZipArchive.Member]

  /// Written by newer versions, of no meaning for the tensors.
  private static let inert = [".format_version", ".storage_alignment", ".data/serialization_id"]

  init(_ archive: ZipArchive) throws {
    let path = archive.file.path
    let first = archive.members.first?.name ?? ""
    let root = String(decoding: first.utf8.prefix { $0 != UInt8(ascii: "/") }, as: UTF8.self)
    var named: [String: ZipArchive.Member] = [:]
    var storages: [ByteKey: ZipArchive.Member] = [:]
    for member in archive.members {
      guard member.name.utf8.starts(with: "\(root)/".utf8) else {
        throw CheckpointError(file: path, place: .member(member.name), found: "it outside \(quoted(root))", expected: "one root folder")
      }
      let name = String(decoding: member.name.utf8.dropFirst(root.utf8.count + 1), as: UTF8.self)
      if name.utf8.starts(with: "data/".utf8) {
        storages[ByteKey(String(decoding: name.utf8.dropFirst(5), as: UTF8.self))] = member
      } else if ["data.pkl", "version", "byteorder"].contains(name) {
        named[name] = member
      } else if name == "constants.pkl" || name.utf8.starts(with: "code/".utf8) {
        throw CheckpointError(
          file: path, place: .member(member.name), found: "a TorchScript program", expected: "a state dict written by torch.save")
      } else if !Self.inert.contains(name) {
        throw CheckpointError(
          file: path, place: .member(member.name), found: "an unknown member", expected: "data.pkl, version, byteorder and data/…")
      }
    }
    guard let pickle = named["data.pkl"] else {
      throw CheckpointError(file: path, found: "no member \(quoted(root + "/data.pkl"))", expected: "a file written by torch.save")
    }
    try Self.require("version", ["3", "3\n"], named["version"], root, archive.file, isOptional: false)
    try Self.require("byteorder", ["little"], named["byteorder"], root, archive.file, isOptional: true)
    self.root = root
    self.pickle = pickle
    self.storages = storages
  }

  private static func require(
    _ name: String, _ allowed: [String], _ member: ZipArchive.Member?, _ root: String, _ file: MappedFile, isOptional: Bool
  ) throws {
    guard let member else {
      if isOptional { return }
      throw CheckpointError(file: file.path, found: "no member \(quoted("\(root)/\(name)"))", expected: "it with \(quoted(allowed[0]))")
    }
    let range = member.range.prefix(100)
    let text = String(decoding: try file.bytes(in: range.lowerBound..<range.upperBound), as: UTF8.self)
    guard member.range.count <= 100, allowed.contains(where: { $0.hasSameBytes(as: text) }) else {
      throw CheckpointError(file: file.path, place: .member(member.name), found: quoted(text), expected: quoted(allowed[0]))
    }
  }
}
