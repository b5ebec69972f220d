@testable import Checkpoints

/// A zip archive under construction, by the letter or with one thing wrong.
struct ZipBuilder {
  struct Member {
    var name: String
    var data: [UInt8]
    /// 8: check value and sizes behind the data; 0x800: the name is UTF-8.
    var flags: UInt16 = 0x808
    var method: UInt16 = 0
    /// Written instead of the name in the local header.
    var localName: String?
    /// Written instead of the true size in the directory.
    var directorySize: UInt32?
    /// Written instead of the true check value.
    var checksum: UInt32?
    /// Sizes in zip64 fields.
    var isWide = false
    /// Written instead of the true place in the directory.
    var offset: UInt32?
    /// Bytes between this member and the next.
    var gap: [UInt8] = []
  }

  var members: [Member]
  var comment: [UInt8] = []
  /// End record in zip64 form.
  var isWide = false

  func build() -> [UInt8] {
    var file: [UInt8] = []
    var directory: [UInt8] = []
    for member in members {
      let checksum = member.checksum ?? member.data.withUnsafeBytes(CRC32.checksum)
      let size = UInt32(member.data.count)
      let offset = member.offset ?? UInt32(file.count)
      let hasDescriptor = member.flags & 8 != 0
      let localName = Array((member.localName ?? member.name).utf8)
      let wide = UInt64(size).littleEndianBytes

      let localSizes =
        member.isWide ? [UInt8](repeating: 0xFF, count: 8) : (hasDescriptor ? 0 : UInt64(size) | UInt64(size) << 32).littleEndianBytes
      // PyTorch pads with a field "FB".
      var extra: [UInt8] = Array("FB".utf8) + UInt16(3).littleEndianBytes + Array("ZZZ".utf8)
      if member.isWide { extra = UInt16(1).littleEndianBytes + UInt16(16).littleEndianBytes + wide + wide + extra }
      file += Array("PK\u{3}\u{4}".utf8) + UInt16(0).littleEndianBytes + member.flags.littleEndianBytes + member.method.littleEndianBytes
      file += [0, 0, 0, 0] + (hasDescriptor && !member.isWide ? 0 : checksum).littleEndianBytes + localSizes
      file += UInt16(localName.count).littleEndianBytes + UInt16(extra.count).littleEndianBytes + localName + extra + member.data
      if hasDescriptor {
        file += Array("PK\u{7}\u{8}".utf8) + checksum.littleEndianBytes
        file += member.isWide ? wide + wide : size.littleEndianBytes + size.littleEndianBytes
      }
      file += member.gap

      let directoryExtra =
        member.isWide ? UInt16(1).littleEndianBytes + UInt16(24).littleEndianBytes + wide + wide + UInt64(offset).littleEndianBytes : []
      let stated = member.isWide ? UInt32.max : member.directorySize ?? size
      directory +=
        Array("PK\u{1}\u{2}".utf8) + [0, 0, 0, 0] + member.flags.littleEndianBytes + member.method.littleEndianBytes + [0, 0, 0, 0]
      directory += checksum.littleEndianBytes + stated.littleEndianBytes + (member.isWide ? UInt32.max : size).littleEndianBytes
      directory += UInt16(member.name.utf8.count).littleEndianBytes + UInt16(directoryExtra.count).littleEndianBytes
      directory += [UInt8](repeating: 0, count: 10) + (member.isWide ? UInt32.max : offset).littleEndianBytes
      directory += Array(member.name.utf8) + directoryExtra
    }
    let start = file.count
    file += directory
    let count = UInt64(members.count)
    if isWide {
      let record = file.count
      file += Array("PK\u{6}\u{6}".utf8) + UInt64(44).littleEndianBytes + [45, 0, 45, 0] + [UInt8](repeating: 0, count: 8)
      file +=
        count.littleEndianBytes + count.littleEndianBytes + UInt64(directory.count).littleEndianBytes + UInt64(start).littleEndianBytes
      file += Array("PK\u{6}\u{7}".utf8) + [0, 0, 0, 0] + UInt64(record).littleEndianBytes + [1, 0, 0, 0]
    }
    file += Array("PK\u{5}\u{6}".utf8) + [0, 0, 0, 0]
    let shortCount = isWide ? UInt16.max : UInt16(count)
    file += shortCount.littleEndianBytes + shortCount.littleEndianBytes
    file += isWide ? [UInt8](repeating: 0xFF, count: 8) : UInt32(directory.count).littleEndianBytes + UInt32(start).littleEndianBytes
    return file + UInt16(comment.count).littleEndianBytes + comment
  }
}

/// The parts of a pickle, as Python's pickler writes them for `torch.save`.
enum PickleText {
  static func string(_ text: String) -> [UInt8] { [0x58] + UInt32(text.utf8.count).littleEndianBytes + Array(text.utf8) }

  static func global(_ module: String, _ name: String) -> [UInt8] { Array("c\(module)\n\(name)\n".utf8) }

  static func integer(_ value: Int) -> [UInt8] {
    switch value {
    case 0...0xFF: [0x4B, UInt8(value)]
    case 0...0xFFFF: [0x4D] + UInt16(value).littleEndianBytes
    case Int(Int32.min)...Int(Int32.max): [0x4A] + Int32(value).littleEndianBytes
    default: [0x8A, 8] + value.littleEndianBytes
    }
  }

  static func tuple(_ elements: [UInt8]...) -> [UInt8] { [0x28] + elements.flatMap { $0 } + [0x74] }

  static func integers(_ values: [Int]) -> [UInt8] {
    switch values.count {
    case 0: [0x29]
    case 1: integer(values[0]) + [0x85]
    case 2: integer(values[0]) + integer(values[1]) + [0x86]
    case 3: values.flatMap(integer) + [0x87]
    default: [0x28] + values.flatMap(integer) + [0x74]
    }
  }

  static let orderedDict = global("collections", "OrderedDict") + [0x29, 0x52]

  static func storage(_ key: String, _ type: String, _ count: Int, module: String = "torch") -> [UInt8] {
    tuple(string("storage"), global(module, type), string(key), string("cpu"), integer(count)) + [0x51]
  }

  static func tensor(_ storage: [UInt8], offset: Int = 0, _ shape: [Int], _ strides: [Int]) -> [UInt8] {
    global("torch._utils", "_rebuild_tensor_v2")
      + tuple(storage, integer(offset), integers(shape), integers(strides), [0x89], orderedDict) + [0x52]
  }

  static func parameter(_ tensor: [UInt8]) -> [UInt8] {
    global("torch._utils", "_rebuild_parameter") + tensor + [0x88] + orderedDict + [0x87, 0x52]
  }

  /// A dictionary; `items` are keys and values.
  static func dictionary(_ items: [UInt8]...) -> [UInt8] { [0x7D, 0x71, 0, 0x28] + items.flatMap { $0 } + [0x75] }

  static func whole(_ value: [UInt8]) -> [UInt8] { [0x80, 2] + value + [0x2E] }
}

/// A PyTorch file of this pickle and these storages.
func torchArchive(_ pickle: [UInt8], storages: [(key: String, data: [UInt8])], root: String = "archive") -> ZipBuilder {
  ZipBuilder(
    members: [.init(name: "\(root)/data.pkl", data: pickle), .init(name: "\(root)/byteorder", data: Array("little".utf8))]
      + storages.map { .init(name: "\(root)/data/\($0.key)", data: $0.data) } + [.init(name: "\(root)/version", data: Array("3\n".utf8))])
}
