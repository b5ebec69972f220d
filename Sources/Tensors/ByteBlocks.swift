/// Numbers in 8 bits, by blocks (Dettmers et al. 2022, arXiv:2110.02861), as bitsandbytes 0.50 keeps an optimizer's moments.
///
/// 256 numbers that follow one another share a scale, the largest magnitude among them; of each is kept which of the 256 values of a map
/// is nearest to it in units of the scale, the lower one of two:
///
///     x_i ≈ s_b map[c_i]      s_b = max |x_i|      c_i = the nearest to x_i / s_b in the map      b = i / 256
///
/// A block of zeros has the scale 0 and, as there, the codes 0; one with a number that is not finite has the scale NaN. The last block may
/// be shorter. (On a GPU bitsandbytes gives a negative first moment that would become 0 the code below; on a processor it looks codes up
/// in a table. Neither is done here.)
///
/// - Complexity: 1.016 bytes a number in single precision.
public struct ByteBlocks<B: Backend> {
  /// Rows and columns of what is kept, or the length of a vector: n numbers.
  public let shape: Shape
  /// The codes, a byte each, one after the other in the memory of ⌈n / bytes of a scalar⌉ scalars that mean nothing as such.
  public var codes: Tensor<B>
  /// s of each block.
  public var scales: Tensor<B>
  /// The map's 256 values, in order.
  public let map: Tensor<B>
  /// Whether the map has negative values.
  public let isSigned: Bool

  /// Numbers in a block.
  public static var blockCount: Int { 256 }

  /// Zeros.
  ///
  /// - Parameter map: the values of the ``DynamicMap`` that `isSigned` names, which blocks may share.
  public init(_ shape: Shape, _ map: Tensor<B>, isSigned: Bool, on backend: B) {
    self.shape = shape
    (self.map, self.isSigned) = (map, isSigned)
    codes = backend.zeros(Shape(Self.codeScalars(shape.count)))
    scales = backend.zeros(Shape((shape.count + Self.blockCount - 1) / Self.blockCount))
  }

  /// Numbers whose codes and scales are there.
  public init(_ shape: Shape, codes: Tensor<B>, scales: Tensor<B>, map: Tensor<B>, isSigned: Bool) {
    (self.shape, self.codes, self.scales, self.map, self.isSigned) = (shape, codes, scales, map, isSigned)
  }

  private static func codeScalars(_ count: Int) -> Int {
    let size = MemoryLayout<B.Scalar>.size
    return (count + size - 1) / size
  }
}

/// The values that 8 bits stand for: `create_dynamic_map` of bitsandbytes, in its arithmetic.
///
/// Seven decades; the k-th from below has 2ᵏ values (twice as many without signs), in the middle of as many equal parts of [0.1, 1]. Beside
/// them 0 and 1; −1 is none.
public enum DynamicMap {
  /// The 256 values, in order.
  public static func values(isSigned: Bool) -> [Float] {
    var values: [Float] = [0, 1]
    for (k, power) in [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1].map({ Float($0) }).enumerated() {
      let parts = (isSigned ? 1 : 2) << k
      for i in 0..<parts {
        let value = power * ((bound(i, parts) + bound(i + 1, parts)) / 2)
        values += isSigned ? [value, -value] : [value]
      }
    }
    return values.sorted()
  }

  /// The i-th bound of so many equal parts of [0.1, 1]: `torch.linspace`, which counts the upper half from above and rounds once.
  private static func bound(_ i: Int, _ parts: Int) -> Float {
    let (first, last): (Float, Float) = (0.1, 1)
    let step = (last - first) / Float(parts)
    return i < (parts + 1) / 2 ? first.addingProduct(step, Float(i)) : last.addingProduct(-step, Float(parts - i))
  }
}
