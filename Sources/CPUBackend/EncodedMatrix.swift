import Tensors

/// A frozen matrix in the encoding of its file, in memory of its own.
final class EncodedMatrix {
  let format: WeightFormat
  let rows: Int
  let columns: Int
  /// Bytes from one row to the next.
  let rowBytes: Int
  private let bytes: UnsafeMutableRawPointer

  /// Copies the bytes of a file.
  ///
  /// - Precondition: `source` holds exactly the matrix, and rows are whole blocks.
  init(_ source: UnsafeRawBufferPointer, _ format: WeightFormat, _ shape: Shape) {
    self.format = format
    (rows, columns) = (shape.rows, shape.columns)
    rowBytes = format.rowBytes(shape.columns)
    guard source.count == rows * rowBytes else { trap("freeze: \(source.count) bytes of \(format.rawValue) for the shape \(shape)") }
    bytes = .allocate(byteCount: max(1, source.count), alignment: 64)
    if let base = source.baseAddress { bytes.copyMemory(from: base, byteCount: source.count) }
  }

  deinit { bytes.deallocate() }

  /// The bytes of row `n`.
  @inline(__always)
  subscript(n: Int) -> UnsafeRawPointer { UnsafeRawPointer(bytes) + n * rowBytes }

  /// Formats that are kept encoded; a wide number is kept as a scalar.
  static func keeps(_ format: WeightFormat) -> Bool {
    switch format {
    case .float32, .float64: false
    default: true
    }
  }

  /// Decodes row `n` to `y`.
  func decode<S: CPUScalar>(row n: Int, to y: UnsafeMutablePointer<S>) {
    format.decode(self[n], columns, to: y)
  }
}
