/// A vector or matrix of numbers that lives where its backend computes.
///
/// A tensor is a value: assigning it shares the storage, and an operation that writes first copies storage that
/// somebody else still holds. Such copies are counted (``Counters/sharedCopies``), because a training step that
/// is written well makes none.
///
/// A view (`rows(_:)`, `columns(_:)`) is free and meant for reading. Operations that write into a part of a
/// tensor take the whole tensor and the part's ranges.
public struct Tensor<B: Backend> {
  /// The device buffer, shared by copies and views of this tensor.
  public var storage: B.Storage
  /// Index of the first element in `storage`, counted in scalars.
  public let offset: Int
  /// Number of rows and columns.
  public let shape: Shape
  /// Distance between the starts of two rows, counted in scalars; at least `shape.columns`.
  public let rowStride: Int

  /// Wraps a buffer. Only backends call this.
  public init(storage: B.Storage, offset: Int = 0, shape: Shape, rowStride: Int? = nil) {
    self.storage = storage
    self.offset = offset
    self.shape = shape
    self.rowStride = rowStride ?? shape.columns
  }

  /// Number of rows; 1 for a vector.
  public var rowCount: Int { shape.rows }
  /// Number of columns; the length of a vector.
  public var columnCount: Int { shape.columns }
  /// True when the elements lie in one run without gaps.
  public var isContiguous: Bool { rowStride == shape.columns || shape.rows <= 1 }

  /// The rows of `range` as a view: `(range.count, columns)`.
  ///
  /// - Precondition: a matrix that has these rows.
  public func rows(_ range: Range<Int>) -> Tensor {
    guard !shape.isVector, range.lowerBound >= 0, range.upperBound <= shape.rows else {
      trap("rows \(range) of a tensor \(shape)")
    }
    return Tensor(
      storage: storage, offset: offset + range.lowerBound * rowStride, shape: Shape(range.count, shape.columns), rowStride: rowStride)
  }

  /// The columns of `range` as a view: `(rows, range.count)`.
  ///
  /// - Precondition: the tensor has these columns.
  public func columns(_ range: Range<Int>) -> Tensor {
    guard range.lowerBound >= 0, range.upperBound <= shape.columns else { trap("columns \(range) of a tensor \(shape)") }
    let part = shape.isVector ? Shape(range.count) : Shape(shape.rows, range.count)
    return Tensor(storage: storage, offset: offset + range.lowerBound, shape: part, rowStride: rowStride)
  }

  /// A vector (n) as a matrix of one column, (n,1); nothing is moved.
  public var asColumn: Tensor {
    guard shape.isVector else { trap("asColumn of a tensor \(shape)") }
    return Tensor(storage: storage, offset: offset, shape: Shape(shape.columns, 1), rowStride: 1)
  }

  /// A matrix of one column (n,1) without gaps as a vector (n); nothing is moved.
  public var asVector: Tensor {
    guard shape.columns == 1, rowStride == 1 else { trap("asVector of a tensor \(shape) with row stride \(rowStride)") }
    return Tensor(storage: storage, offset: offset, shape: Shape(shape.rows))
  }

  /// The transposed matrix as an operand of a product; nothing is moved.
  public var T: Operand<B> { .dense(self, transposed: true) }
}

/// Whole numbers on the device: token ids, labels, positions, offsets, row numbers.
public struct Indices<B: Backend> {
  /// The device buffer of 32-bit integers, shared by all views of it.
  public let storage: B.IndexStorage
  /// Index of the first integer in `storage`.
  public let offset: Int
  /// Number of integers.
  public let count: Int

  /// Wraps a buffer. Only backends call this.
  public init(storage: B.IndexStorage, offset: Int = 0, count: Int) {
    self.storage = storage
    self.offset = offset
    self.count = count
  }

  /// The integers of `range` as a view; nothing is moved.
  ///
  /// - Precondition: there are these integers.
  public subscript(_ range: Range<Int>) -> Indices {
    guard range.lowerBound >= 0, range.upperBound <= count else { trap("integers \(range) of \(count)") }
    return Indices(storage: storage, offset: offset + range.lowerBound, count: range.count)
  }
}
