import Tensors

/// What a tensor's elements look like as a whole. They are taken as float64; NaN and ±∞ are counted and otherwise left out.
public struct NumberStatistics: Equatable, Sendable {
  /// Elements that are NaN or ±∞.
  public var nonfinite = 0
  /// What the finite elements have; nil if there is none.
  public var finite: Finite?

  /// Of n finite elements x: the extremes, the mean Σx/n and the norm √Σx².
  public struct Finite: Equatable, Sendable {
    /// The least element.
    public var minimum: Double
    /// The largest element.
    public var maximum: Double
    /// Σx/n.
    public var mean: Double
    /// √Σx².
    public var norm: Double
  }

  /// Statistics over the elements of a tensor, decoded a few thousand at a time; nil for a type whose elements have no order or are
  /// not decoded.
  ///
  /// Sums are cut into pieces of fixed size. Where squares leave the range of float64 the elements are divided by the largest first.
  ///
  /// - Parameter bytes: little-endian, whole elements or blocks; at any address.
  /// - Complexity: one pass over the bytes, rarely two.
  public init?(_ bytes: UnsafeRawBufferPointer, _ type: ElementType) {
    guard let plain = Sums(bytes, type, divisor: 1) else { return nil }
    nonfinite = plain.nonfinite
    guard plain.count > 0 else { return }
    let largest = max(abs(plain.minimum), abs(plain.maximum))
    let isInRange = plain.sum.isFinite && plain.squares.isFinite && (plain.squares > 1e-280 || largest == 0)
    let unit = isInRange ? 1 : largest
    guard let sums = isInRange ? plain : Sums(bytes, type, divisor: largest) else { return }
    finite = Finite(
      minimum: plain.minimum, maximum: plain.maximum, mean: unit * (sums.sum / Double(sums.count)),
      norm: unit * sums.squares.squareRoot())
  }
}

/// Sums over the finite elements of a piece.
private struct Sums {
  var count = 0
  var nonfinite = 0
  var minimum = Double.infinity
  var maximum = -Double.infinity
  var sum = 0.0
  var squares = 0.0

  init() {}

  init(_ x: UnsafePointer<Double>, _ count: Int, divisor: Double) {
    for i in 0..<count {
      guard x[i].isFinite else {
        nonfinite += 1
        continue
      }
      minimum = min(minimum, x[i])
      maximum = max(maximum, x[i])
      let scaled = x[i] / divisor
      sum += scaled
      squares += scaled * scaled
    }
    self.count = count - nonfinite
  }

  mutating func add(_ other: Sums) {
    count += other.count
    nonfinite += other.nonfinite
    minimum = min(minimum, other.minimum)
    maximum = max(maximum, other.maximum)
    sum += other.sum
    squares += other.squares
  }
}

extension Sums {
  /// Elements that are decoded together: 32 KiB of float64, and whole blocks of every type.
  private static let piece = 4096

  /// The sums over all elements; nil for a type that is not decoded.
  fileprivate init?(_ bytes: UnsafeRawBufferPointer, _ type: ElementType, divisor: Double) {
    self.init()
    guard Self.decode(type, bytes.baseAddress, 0, nil) else { return nil }
    guard let base = bytes.baseAddress else { return }
    let blockBytes = type.blockBits / 8
    let count = bytes.count / blockBytes * type.blockElements
    withUnsafeTemporaryAllocation(of: Double.self, capacity: Self.piece) { x in
      guard let values = x.baseAddress else { return }
      for start in stride(from: 0, to: count, by: Self.piece) {
        let length = min(Self.piece, count - start)
        _ = Self.decode(type, base + start / type.blockElements * blockBytes, length, values)
        add(Sums(values, length, divisor: divisor))
      }
    }
  }

  /// Writes `count` elements as float64, integers beyond 2⁵³ rounded; false for a type that is not decoded.
  private static func decode(_ type: ElementType, _ bytes: UnsafeRawPointer?, _ count: Int, _ y: UnsafeMutablePointer<Double>?) -> Bool {
    switch type {
    case .float(let format): if let bytes, let y { format.decode(bytes, count, to: y) }
    case .int8: words(Int8.self, bytes, count, y)
    case .bool, .uint8: words(UInt8.self, bytes, count, y)
    case .int16: words(Int16.self, bytes, count, y)
    case .uint16: words(UInt16.self, bytes, count, y)
    case .int32: words(Int32.self, bytes, count, y)
    case .uint32: words(UInt32.self, bytes, count, y)
    case .int64: words(Int64.self, bytes, count, y)
    case .uint64: words(UInt64.self, bytes, count, y)
    case .float4, .float6E2M3, .float6E3M2, .float8E5M2, .float8E4M3, .float8E8M0, .float8E4M3FNUZ, .float8E5M2FNUZ, .complex64:
      return false
    }
    return true
  }

  /// Little-endian words that need not be aligned.
  @inline(__always)
  private static func words<Word: FixedWidthInteger & BitwiseCopyable>(
    _: Word.Type, _ bytes: UnsafeRawPointer?, _ count: Int, _ y: UnsafeMutablePointer<Double>?
  ) {
    guard let bytes, let y else { return }
    for i in 0..<count {
      y[i] = Double(Word(littleEndian: bytes.loadUnaligned(fromByteOffset: i * MemoryLayout<Word>.size, as: Word.self)))
    }
  }
}
