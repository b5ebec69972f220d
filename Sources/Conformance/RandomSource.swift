import Tensors

/// Inputs of the cases: the same on every machine and in both precisions.
///
/// The numbers come from `Philox` under a key made of the case's name. They are exact in the precision of the
/// backend, so that it and the naive definition read the same inputs; a float64 backend gets all 53 bits, unless two
/// precisions are to be compared.
public struct RandomSource: Sendable {
  private let key: RandomKey
  private let isExactInFloat: Bool
  private var drawn: UInt32 = 0

  /// A source whose numbers depend on `name` alone, rounded to float32 or not.
  public init(_ name: String, isExactInFloat: Bool = true) {
    key = RandomKey(seed: 1).derived(name, "conformance")
    self.isExactInFloat = isExactInFloat
  }

  /// The next 32 random bits.
  public mutating func bits() -> UInt32 {
    defer { drawn += 1 }
    return Philox.numbers(counter: SIMD4(drawn / 4, 0, 0, 0), key: key)[Int(drawn % 4)]
  }

  /// The next whole number in 0 ..< bound. Not exactly uniform, which no case needs.
  public mutating func integer(below bound: Int) -> Int { Int(bits() % UInt32(bound)) }

  /// The next number, uniform in ±0.97 scale. The factor takes it off the grid of fixed-point numbers, whose sums are exact.
  public mutating func number(_ scale: Double = 1) -> Double {
    let (high, low) = (Double(bits()), Double(bits() >> 11))
    let number = (high * 0x1p-31 + low * 0x1p-52 - 1) * 0.9693771 * scale
    return isExactInFloat ? Double(Float(number)) : number
  }

  /// A vector of such numbers.
  public mutating func vector(_ count: Int, _ scale: Double = 1) -> [Double] {
    var values: [Double] = []
    for _ in 0..<count { values.append(number(scale)) }
    return values
  }

  /// A matrix of such numbers.
  public mutating func matrix(_ rows: Int, _ columns: Int, _ scale: Double = 1) -> Matrix {
    Matrix(rows, columns, vector(rows * columns, scale))
  }

  /// `count` different numbers of 0 ..< bound in random order.
  public mutating func distinct(_ count: Int, below bound: Int) -> [Int] {
    var all = Array(0..<bound)
    for i in 0..<count { all.swapAt(i, i + integer(below: bound - i)) }
    return Array(all[..<count])
  }
}
