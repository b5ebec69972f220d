/// The size of a tensor: a vector `(n)` or a row-major matrix `(rows, columns)`.
///
/// Two ranks are all that this engine needs. Tokens are rows; heads, experts and blocks are ranges of columns or
/// rows whose sizes the layer names once, so no operation has to guess what an axis means.
public struct Shape: Equatable, Hashable, Sendable, CustomStringConvertible {
  /// Number of rows; 1 for a vector.
  public let rows: Int
  /// Number of columns; the length of a vector.
  public let columns: Int
  /// True for `(n)`, which files and messages keep apart from `(1, n)`.
  public let isVector: Bool

  /// A matrix of `rows` × `columns`. Either may be 0.
  public init(_ rows: Int, _ columns: Int) {
    self.rows = rows
    self.columns = columns
    isVector = false
  }

  /// A vector of `count` elements.
  public init(_ count: Int) {
    rows = 1
    columns = count
    isVector = true
  }

  /// Number of elements.
  public var count: Int { rows * columns }

  /// The sizes as files store them: `[n]` or `[rows, columns]`.
  public var sizes: [Int] { isVector ? [columns] : [rows, columns] }

  /// `(n)` or `(rows,columns)`, as error messages print it.
  public var description: String { isVector ? "(\(columns))" : "(\(rows),\(columns))" }
}
