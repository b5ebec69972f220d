import JSON

/// A tensor's name, element type and shape, known to describe a whole and countable number of bytes.
public struct TensorEntry: Equatable, Sendable, CustomStringConvertible {
  /// Why a shape and an element type describe no tensor.
  public enum ShapeError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A size below zero.
    case negativeSize(shape: [Int])
    /// The number of elements or bits is beyond `Int`.
    case overflow(shape: [Int], elementType: ElementType)
    /// More than `maximumAxes` sizes.
    case tooManyAxes(Int)
    /// Packed elements that end inside a byte.
    case partialByte(shape: [Int], elementType: ElementType, bits: Int)
    /// Rows of a quantized type that end inside a block.
    case partialBlock(shape: [Int], elementType: ElementType)

    /// What was found, in words and numbers.
    public var description: String {
      switch self {
      case .negativeSize(let shape): "shape \(shape) with a negative size"
      case .overflow(let shape, let type): "shape \(shape) of \(type), whose size is beyond 2^63 bits"
      case .tooManyAxes(let count): "a shape of \(count) axes, more than \(maximumAxes)"
      case .partialByte(let shape, let type, let bits): "shape \(shape) of \(type), whose \(bits) bits are no whole number of bytes"
      case .partialBlock(let shape, let type):
        "shape \(shape) of \(type), whose rows of \(shape.last ?? 1) are no whole number of blocks of \(type.blockElements)"
      }
    }
  }

  /// The most sizes of a shape, where PyTorch's reductions stop too: a walk over a view and a message about a shape stay short.
  public static let maximumAxes = 64

  /// The name, compared by bytes.
  public let name: String
  /// The type of every element.
  public let elementType: ElementType
  /// The sizes, outermost first; empty for a scalar, and any of them may be zero.
  public let shape: [Int]
  /// The product of the sizes.
  public let elementCount: Int
  /// The bytes that the elements take.
  public let byteCount: Int

  /// Describes a tensor.
  ///
  /// - Throws: `ShapeError` where the byte count does not exist. The product is taken from left to right, so a zero hides an
  ///   overflow only if it comes first (as in the reference implementation of safetensors).
  public init(name: String, elementType: ElementType, shape: [Int]) throws(ShapeError) {
    guard shape.count <= Self.maximumAxes else { throw .tooManyAxes(shape.count) }
    var count = 1
    for size in shape {
      guard size >= 0 else { throw .negativeSize(shape: shape) }
      let (product, overflow) = count.multipliedReportingOverflow(by: size)
      guard !overflow else { throw .overflow(shape: shape, elementType: elementType) }
      count = product
    }
    guard (shape.last ?? 1) % elementType.blockElements == 0 else { throw .partialBlock(shape: shape, elementType: elementType) }
    let (bits, overflow) = (count / elementType.blockElements).multipliedReportingOverflow(by: elementType.blockBits)
    guard !overflow else { throw .overflow(shape: shape, elementType: elementType) }
    guard bits % 8 == 0 else { throw .partialByte(shape: shape, elementType: elementType, bits: bits) }
    self.name = name
    self.elementType = elementType
    self.shape = shape
    self.elementCount = count
    self.byteCount = bits / 8
  }

  /// Whether name (by bytes), element type and shape agree.
  public static func == (left: TensorEntry, right: TensorEntry) -> Bool {
    left.name.hasSameBytes(as: right.name) && left.elementType == right.elementType && left.shape == right.shape
  }

  /// Such as `"wte.weight" F32 [256, 64]`.
  public var description: String { "\(quoted(name)) \(elementType) \(shape)" }
}
