import COpenBLAS
import CVectors
import Tensors

/// What `CPUFloat` and `CPUDouble` have in common: all operations, as extensions by topic.
///
/// The two classes are concrete and live in this module, so the compiler specializes every kernel for both; an
/// unspecialized one would cost a hundredfold. Other modules pay one witness call per operation.
///
/// Results are the same bits from run to run with the same number of threads: a sum is split by its columns or
/// into chunks of fixed size, and which thread runs a part changes nothing.
protocol CPUBackend: Backend
where Scalar: CPUScalar, Storage == Buffer<Scalar>, IndexStorage == Buffer<Int32>, FrozenMatrix == CPUMatrix<Self> {
  var core: CPUCore { get }
}

/// Threads, memory and counters of one backend.
final class CPUCore {
  let threads: ThreadPool
  let pool: BufferPool
  var sharedCopies = 0
  var bytesToDevice = 0
  var bytesToHost = 0
  var operations = 0
  var waits = 0
  /// Operations that have begun and not ended.
  var depth = 0
  var profile: Profile?
  var productThreading = ProductThreading.rows
  /// The masks formed last, by key.
  var masks: [RandomKey: KeptMask] = [:]
  /// Where encoded matrices are expanded: a `Buffer` of the backend's scalars, as large as was needed so far.
  var scratch: AnyObject?
  /// The most scalars that it may have: 16 MiB of float32, what a cache can hold a good part of.
  var scratchCount = 1 << 22

  init(threads: Int, isPoisoned: Bool) {
    _ = Self.openBLASUsesOurThreads
    self.threads = ThreadPool(threads: threads)
    pool = BufferPool(isPoisoned: isPoisoned)
  }

  /// OpenBLAS's own threads would compete with ours. Process-wide, set once.
  private static let openBLASUsesOurThreads: Void = openblas_set_num_threads(1)
}

/// The processor in single precision.
public final class CPUFloat: CPUBackend {
  /// Element type of tensors.
  public typealias Scalar = Float
  /// A pooled buffer of scalars.
  public typealias Storage = Buffer<Float>
  /// A pooled buffer of integers.
  public typealias IndexStorage = Buffer<Int32>
  /// A weight as it is stored, or decoded to scalars.
  public typealias FrozenMatrix = CPUMatrix<CPUFloat>
  let core: CPUCore

  /// A backend with `threads` threads, the caller's included; `isPoisoned` fills fresh buffers with NaN, for tests.
  public init(threads: Int, isPoisoned: Bool = false) { core = CPUCore(threads: threads, isPoisoned: isPoisoned) }
}

/// The processor in double precision: the oracle that everything else is judged against.
public final class CPUDouble: CPUBackend {
  /// Element type of tensors.
  public typealias Scalar = Double
  /// A pooled buffer of scalars.
  public typealias Storage = Buffer<Double>
  /// A pooled buffer of integers.
  public typealias IndexStorage = Buffer<Int32>
  /// A weight as it is stored, or decoded to scalars.
  public typealias FrozenMatrix = CPUMatrix<CPUDouble>
  let core: CPUCore

  /// A backend with `threads` threads, the caller's included; `isPoisoned` fills fresh buffers with NaN, for tests.
  public init(threads: Int, isPoisoned: Bool = false) { core = CPUCore(threads: threads, isPoisoned: isPoisoned) }
}

/// A frozen weight on the CPU: 16-bit and quantized matrices as they are stored, everything else decoded to scalars once.
public struct CPUMatrix<B: Backend>: FrozenMatrixShape {
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

/// A tensor as kernels see it. Whoever makes one keeps the tensor alive while it is used.
struct Rows<Scalar> {
  let base: UnsafeMutablePointer<Scalar>
  let count: Int
  let width: Int
  let stride: Int

  /// The start of row `n`.
  @inline(__always)
  subscript(n: Int) -> UnsafeMutablePointer<Scalar> { base + n * stride }
  var isContiguous: Bool { stride == width || count <= 1 }
  /// Some of the rows.
  func rows(_ range: Range<Int>) -> Rows { Rows(base: self[range.lowerBound], count: range.count, width: width, stride: stride) }
  /// Some of the columns.
  func columns(_ range: Range<Int>) -> Rows { Rows(base: base + range.lowerBound, count: count, width: range.count, stride: stride) }
  /// Asks for a row that comes next. Some columns of rows, a stride apart, are no stream that the processor could guess.
  @inline(__always)
  func prefetch(_ n: Int) {
    for j in Swift.stride(from: 0, to: width, by: 64 / MemoryLayout<Scalar>.stride) { vectors_prefetch(self[n] + j) }
  }
  /// The same memory as a factor of a product.
  var matrix: Matrix<Scalar> { Matrix(base: base, stride: stride) }
}

extension CPUBackend {
  public var counters: Counters {
    var counters = Counters()
    counters.poolMisses = core.pool.free.misses
    counters.poolBytes = core.pool.free.peakBytes
    counters.sharedCopies = core.sharedCopies
    counters.bytesToDevice = core.bytesToDevice
    counters.bytesToHost = core.bytesToHost
    counters.operations = core.operations
    counters.waits = core.waits
    return counters
  }

  /// 128, which is enough for a product to run at full speed; 256 where the head must be expanded first: logits of
  /// 49 152 tokens are then 50 MB, and for 512 rows it is expanded twice.
  public func headRows(_ weight: Weight<Self>) -> Int {
    guard case .frozen(let matrix) = weight, case .encoded = matrix.contents else { return 128 }
    return 256
  }

  // MARK: Access

  /// `tensor` for reading.
  func rows(_ tensor: Tensor<Self>) -> Rows<Scalar> {
    Rows(base: tensor.storage.pointer + tensor.offset, count: tensor.rowCount, width: tensor.columnCount, stride: tensor.rowStride)
  }

  /// `tensor` for writing: storage that somebody else holds is copied first, and counted. Of a view only the view is copied.
  func writable(_ tensor: inout Tensor<Self>) -> Rows<Scalar> {
    if !isKnownUniquelyReferenced(&tensor.storage) {
      core.sharedCopies += 1
      tensor = copy(tensor)
    }
    if tensor.storage.unwrittenBytes > 0 { tensor.storage.write(tensor.shape.count * MemoryLayout<Scalar>.stride) }
    return rows(tensor)
  }

  /// A fresh matrix and its rows.
  func fresh(_ shape: Shape) -> (Tensor<Self>, Rows<Scalar>) {
    let tensor = empty(shape)
    return (tensor, rows(tensor))
  }

  /// The integers of `indices`.
  @inline(__always)
  func integers(_ indices: Indices<Self>) -> UnsafeMutablePointer<Int32> { indices.storage.pointer + indices.offset }

  /// A fresh index buffer.
  func freshIndices(_ count: Int) -> Indices<Self> { Indices(storage: core.pool.buffer(count), count: count) }

  // MARK: Loops over threads

  /// Scalar operations below which waking another thread costs more than it brings.
  static var worthAThread: Int { 8192 }

  /// Calls `body` on ranges that make up 0 ..< count, each a multiple of `unit` long but for the last.
  ///
  /// Where the cuts lie depends on the number of threads, so an item's result must not depend on its range.
  /// `cost` is the rough number of scalar operations of one item.
  @inline(__always)
  func forRanges(_ count: Int, cost: Int, unit: Int = 1, _ body: (Range<Int>) -> Void) {
    if count <= 0 { return }
    let units = (count + unit - 1) / unit
    let parts = min(units, 4 * core.threads.threads, max(1, count * max(cost, 1) / Self.worthAThread))
    if core.threads.threads == 1 || parts <= 1 { return body(0..<count) }
    core.threads.parallel(parts) { part in
      body(part * units / parts * unit..<min((part + 1) * units / parts * unit, count))
    }
  }

  /// Calls `body` on blocks that make up all elements of equally shaped matrices; contiguous ones count as one long row.
  @inline(__always)
  func forBlocks(_ views: Rows<Scalar>..., cost: Int = 1, _ body: (_ rows: Range<Int>, _ columns: Range<Int>) -> Void) {
    let (count, width) = (views[0].count, views[0].width)
    if count == 1 || views.allSatisfy(\.isContiguous) {
      forRanges(count * width, cost: cost, unit: 64) { body(0..<1, $0) }
    } else {
      forRanges(count, cost: width * cost) { body($0, 0..<width) }
    }
  }

  /// Calls `body(part, thread)` for every part, one after the other if the whole `work` is small.
  @inline(__always)
  func forParts(_ parts: Int, work: Int, _ body: (_ part: Int, _ thread: Int) -> Void) {
    if work < 4 * Self.worthAThread {
      for part in 0..<parts { body(part, 0) }
    } else {
      core.threads.parallel(parts, body)
    }
  }
}
