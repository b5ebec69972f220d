import CCUDA
import Tensors

/// A frozen weight on the device: matrices in the formats that kernels read as they are stored, everything else decoded to scalars once.
public struct CUDAMatrix<B: Backend>: FrozenMatrixShape {
  enum Contents {
    case dense(Tensor<B>)
    case encoded(EncodedMatrix)
  }

  let contents: Contents
  /// Rows and columns, or the length of a vector.
  public let shape: Shape

  init(_ tensor: Tensor<B>) { (contents, shape) = (.dense(tensor), tensor.shape) }
  init(_ matrix: EncodedMatrix) { (contents, shape) = (.encoded(matrix), Shape(matrix.rows, matrix.columns)) }
}

/// A matrix in the encoding of its file.
struct EncodedMatrix {
  let storage: DeviceBuffer
  let format: DeviceFormat
  let rows: Int
  let columns: Int
  /// Bytes from one row to the next.
  let rowBytes: Int

  /// What kernels are told of the rows from `row` on.
  func from(row: Int) -> DeviceEncoding {
    DeviceEncoding(base: storage.address + UInt64(row * rowBytes), stride: Int64(rowBytes), format: format.rawValue)
  }
}

/// What kernels read; `enum format` of encoded.cu.
enum DeviceFormat: Int32 {
  case scalars, float16, bfloat16, q8_0, q4_0, q4_1

  /// Nil for what is decoded when it is frozen.
  init?(_ format: WeightFormat) {
    switch format {
    case .float16: self = .float16
    case .bfloat16: self = .bfloat16
    case .q8_0: self = .q8_0
    case .q4_0: self = .q4_0
    case .q4_1: self = .q4_1
    default: return nil
    }
  }
}

/// An encoded matrix as kernels see it; `struct encoded` of encoded.cu.
struct DeviceEncoding: BitwiseCopyable {
  let base: cuda_address
  let stride: Int64
  let format: Int32
}

/// A matrix as a product reads it: its rows as they are stored, and whether it is transposed.
struct FactorMatrix {
  let rows: DeviceRows
  var isTransposed = false

  /// The lines of a left factor are its rows.
  var left: DeviceFactor {
    DeviceFactor(base: rows.base, line: isTransposed ? 1 : rows.stride, term: isTransposed ? rows.stride : 1)
  }
  /// The lines of a right factor are its columns.
  var right: DeviceFactor { FactorMatrix(rows: rows, isTransposed: !isTransposed).left }

  /// The matrix from row `i`, column `j` on, counted after the transposition.
  func from<Scalar>(row i: Int = 0, column j: Int = 0, of type: Scalar.Type) -> FactorMatrix {
    FactorMatrix(rows: rows.from(row: isTransposed ? j : i, column: isTransposed ? i : j, of: type), isTransposed: isTransposed)
  }
}

/// A factor as kernels see it; `struct factor` of gemm.cu.
struct DeviceFactor: BitwiseCopyable {
  let base: cuda_address
  let line: Int64
  let term: Int64
}
