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

  /// How elements are stored.
  public enum Format: Equatable, Sendable {
    /// Floating-point numbers, quantised ones too.
    case weights(WeightFormat)
    /// Integers of so many bytes; beyond 2⁵³ they are rounded.
    case integers(bytes: Int, isSigned: Bool)
  }
}

extension CPUDouble {
  /// Statistics over the elements of a file's tensor, decoded a few thousand at a time.
  ///
  /// Sums are cut into pieces of fixed size, so that threads change no bit. Where squares leave the range of float64 the elements
  /// are divided by the largest first.
  ///
  /// - Parameter bytes: little-endian, whole elements or blocks; at any address.
  /// - Complexity: one pass over the bytes, rarely two.
  public func statistics(_ bytes: UnsafeRawBufferPointer, _ format: NumberStatistics.Format) -> NumberStatistics {
    let plain = sums(bytes, format, divisor: 1)
    guard plain.count > 0 else { return NumberStatistics(nonfinite: plain.nonfinite) }
    let largest = max(abs(plain.minimum), abs(plain.maximum))
    let isInRange = plain.sum.isFinite && plain.squares.isFinite && (plain.squares > 1e-280 || largest == 0)
    let sums = isInRange ? plain : sums(bytes, format, divisor: largest)
    let unit = isInRange ? 1 : largest
    return NumberStatistics(
      nonfinite: plain.nonfinite,
      finite: .init(
        minimum: plain.minimum, maximum: plain.maximum, mean: unit * (sums.sum / Double(sums.count)),
        norm: unit * sums.squares.squareRoot()))
  }

  private func sums(_ bytes: UnsafeRawBufferPointer, _ format: NumberStatistics.Format, divisor: Double) -> Sums {
    guard let base = bytes.baseAddress, !bytes.isEmpty else { return Sums() }
    let count = bytes.count / format.blockBytes * format.blockCount
    let pieceCount = (count + Self.statisticsPiece - 1) / Self.statisticsPiece
    var pieces = [Sums](repeating: Sums(), count: pieceCount)
    pieces.withUnsafeMutableBufferPointer { pieces in
      forParts(pieceCount, work: count) { piece, _ in
        let start = piece * Self.statisticsPiece
        let length = min(Self.statisticsPiece, count - start)
        withUnsafeTemporaryAllocation(of: Double.self, capacity: length) { x in
          guard let values = x.baseAddress else { return }
          format.decode(base + start / format.blockCount * format.blockBytes, length, to: values)
          pieces[piece] = Sums(values, length, divisor: divisor)
        }
      }
    }
    return pieces.reduce(into: Sums()) { $0.add($1) }
  }

  /// Elements that are decoded together: 32 KiB of float64, and whole blocks of every format.
  private static var statisticsPiece: Int { 4096 }
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

extension NumberStatistics.Format {
  fileprivate var blockCount: Int {
    if case .weights(let format) = self { format.blockCount } else { 1 }
  }

  fileprivate var blockBytes: Int {
    switch self {
    case .weights(let format): format.blockBytes
    case .integers(let bytes, _): bytes
    }
  }

  fileprivate func decode(_ bytes: UnsafeRawPointer, _ count: Int, to y: UnsafeMutablePointer<Double>) {
    switch self {
    case .weights(.float64): Self.decode(bytes, count, y) { (bits: UInt64) in Double(bitPattern: bits) }
    case .weights(.float32): Self.decode(bytes, count, y) { (bits: UInt32) in Double(Float(bitPattern: bits)) }
    case .weights(.float16): EncodedMatrix.decode(Float16Encoding.self, bytes, count, y)
    case .weights(.bfloat16): EncodedMatrix.decode(BFloat16Encoding.self, bytes, count, y)
    case .weights(.q8_0): EncodedMatrix.decode(Q8_0Encoding.self, bytes, count, y)
    case .weights(.q4_0): EncodedMatrix.decode(Q4_0Encoding.self, bytes, count, y)
    case .weights(.q4_1): EncodedMatrix.decode(Q4_1Encoding.self, bytes, count, y)
    case .integers(1, true): Self.decode(bytes, count, y) { (x: Int8) in Double(x) }
    case .integers(1, _): Self.decode(bytes, count, y) { (x: UInt8) in Double(x) }
    case .integers(2, true): Self.decode(bytes, count, y) { (x: Int16) in Double(x) }
    case .integers(2, _): Self.decode(bytes, count, y) { (x: UInt16) in Double(x) }
    case .integers(4, true): Self.decode(bytes, count, y) { (x: Int32) in Double(x) }
    case .integers(4, _): Self.decode(bytes, count, y) { (x: UInt32) in Double(x) }
    case .integers(8, true): Self.decode(bytes, count, y) { (x: Int64) in Double(x) }
    case .integers(8, _): Self.decode(bytes, count, y) { (x: UInt64) in Double(x) }
    case .integers(let width, _): trap("statistics: integers of \(width) bytes")
    }
  }

  /// Little-endian words that need not be aligned.
  @inline(__always)
  private static func decode<Word: FixedWidthInteger & BitwiseCopyable>(
    _ bytes: UnsafeRawPointer, _ count: Int, _ y: UnsafeMutablePointer<Double>, _ value: (Word) -> Double
  ) {
    for i in 0..<count {
      y[i] = value(Word(littleEndian: bytes.loadUnaligned(fromByteOffset: i * MemoryLayout<Word>.size, as: Word.self)))
    }
  }
}
