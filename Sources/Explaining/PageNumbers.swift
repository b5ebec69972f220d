/// Numbers in base64: of each tensor its float32 values, four bytes each, the lowest first.
struct PageNumbers {
  /// All of them, one behind the other.
  private(set) var text: [UInt8] = []
  private var places: [[UInt8]: Int] = [:]

  /// Characters that so many numbers take.
  static func characters(_ count: Int) -> Int { (4 * count + 2) / 3 * 4 }

  /// Adds numbers, unless the same bits are there already.
  ///
  /// - Returns: where their text begins.
  mutating func append(_ values: [Float]) -> Int {
    let encoded = Self.encoded(values)
    if let place = places[encoded] { return place }
    let place = text.count
    places[encoded] = place
    text += encoded
    return place
  }

  /// Takes out again what was added behind so many characters.
  mutating func cut(to count: Int) {
    text.removeLast(text.count - count)
    places = places.filter { $0.value < count }
  }

  private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  static func encoded(_ values: [Float]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(4 * values.count)
    for value in values { withUnsafeBytes(of: value.bitPattern.littleEndian) { bytes += $0 } }
    var out: [UInt8] = []
    out.reserveCapacity(characters(values.count))
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let left = min(3, bytes.count - start)
      var word = 0
      for n in 0..<3 { word = word << 8 | (n < left ? Int(bytes[start + n]) : 0) }
      for n in 0..<4 { out.append(n <= left ? alphabet[word >> (18 - 6 * n) & 63] : UInt8(ascii: "=")) }
    }
    return out
  }
}
