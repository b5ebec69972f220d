import CCUDA
import Tensors

/// What `CUDAFloat` and `CUDADouble` have in common: all operations, as extensions by topic that mirror those of the CPU.
///
/// An operation checks shapes, takes a fresh buffer and enqueues kernels of `Sources/CCUDA/kernels`; nothing waits. What fails on the
/// device is remembered and thrown by the next `download` or `synchronize`. Results are the same bits from run to run: no kernel adds
/// in an order of chance.
protocol CUDABackend: Backend
where Scalar: CUDAScalar, Storage == DeviceBuffer, IndexStorage == DeviceBuffer, FrozenMatrix == CUDAMatrix<Self> {
  var core: CUDACore { get }
}

/// The two precisions that kernels are compiled for.
protocol CUDAScalar: BinaryFloatingPoint, SIMDScalar, Codable, Sendable, BitwiseCopyable {
  static var isDouble: Bool { get }
}
extension Float: CUDAScalar { static var isDouble: Bool { false } }
extension Double: CUDAScalar { static var isDouble: Bool { true } }

/// A device in single precision.
public final class CUDAFloat: CUDABackend {
  /// Element type of tensors.
  public typealias Scalar = Float
  /// A pooled buffer of the device.
  public typealias Storage = DeviceBuffer
  /// A pooled buffer of the device.
  public typealias IndexStorage = DeviceBuffer
  /// A weight on the device.
  public typealias FrozenMatrix = CUDAMatrix<CUDAFloat>
  let core: CUDACore

  /// A backend on `device`; `isPoisoned` fills fresh buffers with NaN, for tests.
  public init(_ device: CUDADevice, isPoisoned: Bool = false) throws { core = try CUDACore(device, isPoisoned: isPoisoned) }
}

/// A device in double precision, where rounding hides nothing.
public final class CUDADouble: CUDABackend {
  /// Element type of tensors.
  public typealias Scalar = Double
  /// A pooled buffer of the device.
  public typealias Storage = DeviceBuffer
  /// A pooled buffer of the device.
  public typealias IndexStorage = DeviceBuffer
  /// A weight on the device.
  public typealias FrozenMatrix = CUDAMatrix<CUDADouble>
  let core: CUDACore

  /// A backend on `device`; `isPoisoned` fills fresh buffers with NaN, for tests.
  public init(_ device: CUDADevice, isPoisoned: Bool = false) throws { core = try CUDACore(device, isPoisoned: isPoisoned) }
}

/// An operation that reads indices, by the number that kernels report.
enum IndexedOperation: Int32 {
  case copy = 1
  case rope, embedding, addEmbeddingGradient, crossEntropy, gather, addScattered, route
}

/// A matrix as kernels see it; `struct rows` of mx.cuh.
struct DeviceRows: BitwiseCopyable {
  let base: cuda_address
  let stride: Int64
}

/// Where kernels report an index that is out of range; `struct error_word` of mx.cuh.
struct ErrorWord: BitwiseCopyable {
  let word: cuda_address
  let operation: Int32
}

/// Device, memory and counters of one backend.
final class CUDACore {
  let device: CUDADevice
  let pool: DevicePool
  /// Three integers: the operation that met an index out of range, the index, and the number that it must be below.
  let errorWord: DeviceBuffer
  var counters = Counters()
  /// The most scalars that an encoded matrix is expanded into at a time: a whole weight of a model of 7 billion, 256 MiB of float32.
  var expandedCount = 1 << 26
  /// Blocks that keep a large device busy with the experts' hidden rows; where there is more to do, each walks several tiles.
  var expertBlocks = 512
  /// Operations that have begun and not ended.
  var depth = 0
  var profile: Profile?
  /// What went wrong first; thrown by the next wait.
  private var failure: CUDAError?

  init(_ device: CUDADevice, isPoisoned: Bool) throws {
    self.device = device
    pool = DevicePool(device, isPoisoned: isPoisoned)
    errorWord = try pool.buffer(12)
    try device.check(device.table.upload(device.handle, errorWord.address, [Int32](repeating: 0, count: 3), 12))
  }

  /// Does something on the device, and remembers what failed first.
  func attempt<R>(_ body: () throws -> R) -> R? {
    do { return try body() } catch {
      if failure == nil { failure = error as? CUDAError ?? CUDAError("\(error)") }
      return nil
    }
  }

  /// Throws what failed since the last wait.
  func throwFailure() throws {
    if let failure = failure.take() { throw failure }
  }

  /// A buffer of `bytes`.
  func buffer(_ bytes: Int) -> DeviceBuffer { attempt { try pool.buffer(bytes) } ?? DeviceBuffer(nowhere: ()) }
}

extension CUDABackend {
  public var counters: Counters {
    var counters = core.counters
    counters.poolMisses = core.pool.free.misses
    counters.poolBytes = core.pool.free.peakBytes
    return counters
  }

  // MARK: Access

  /// `tensor` for reading.
  func rows(_ tensor: Tensor<Self>) -> DeviceRows {
    DeviceRows(base: address(tensor), stride: Int64(tensor.rowStride))
  }

  /// The first element of `tensor`.
  func address(_ tensor: Tensor<Self>) -> cuda_address {
    tensor.storage.address + UInt64(tensor.offset * MemoryLayout<Scalar>.stride)
  }

  /// The first of `indices`.
  func address(_ indices: Indices<Self>) -> cuda_address { indices.storage.address + UInt64(4 * indices.offset) }

  /// `tensor` for writing: storage that somebody else holds is copied first, and counted. Of a view only the view is copied.
  func writable(_ tensor: inout Tensor<Self>) -> DeviceRows {
    if !isKnownUniquelyReferenced(&tensor.storage) {
      core.counters.sharedCopies += 1
      tensor = copy(tensor)
    }
    return rows(tensor)
  }

  /// A fresh matrix and its rows.
  func fresh(_ shape: Shape) -> (Tensor<Self>, DeviceRows) {
    let tensor = empty(shape)
    return (tensor, rows(tensor))
  }

  /// Fresh indices.
  func freshIndices(_ count: Int) -> Indices<Self> { Indices(storage: core.buffer(4 * count), count: count) }

  /// Where `operation` reports an index that is out of range.
  func errorWord(_ operation: IndexedOperation) -> ErrorWord { ErrorWord(word: core.errorWord.address, operation: operation.rawValue) }

  // MARK: Launches

  /// Enqueues a kernel on blocks of `threads`; nothing, if there are no blocks.
  func launch<each Argument: BitwiseCopyable>(
    _ name: String, blocks: Int, by y: Int = 1, threads: Int, _ arguments: repeat each Argument
  ) {
    if blocks <= 0 || y <= 0 { return }
    core.attempt {
      let grid = cuda_grid(x: UInt32(blocks), y: UInt32(y), threads: UInt32(threads))
      try core.device.launch(name, isDouble: Scalar.isDouble, grid, repeat each arguments)
    }
  }

  /// Enqueues a kernel with a thread for every one of `count` items.
  func launch<each Argument: BitwiseCopyable>(_ name: String, over count: Int, _ arguments: repeat each Argument) {
    launch(name, blocks: (count + 255) / 256, threads: 256, repeat each arguments)
  }
}
