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
