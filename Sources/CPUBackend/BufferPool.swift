import Platform
import Tensors

/// Memory of a CPU backend, every block aligned to 64 bytes or more.
///
/// A block comes back when its ``Buffer`` is released and is handed out again first, while it is still in cache.
/// Large vectors of zeros (gradients before backward) take no memory until they are written; then as much of what is free is given back.
/// Not for several threads at once: buffers are taken and released where the backend's one caller runs.
final class BufferPool {
  /// Fills what `empty` hands out with NaN (all bits set), so that a test finds what nobody wrote.
  let isPoisoned: Bool
  var free = FreeBlocks<UnsafeMutableRawPointer>()

  init(isPoisoned: Bool) { self.isPoisoned = isPoisoned }

  deinit {
    for block in free.blocks { block.deallocate() }
  }

  /// A buffer of `count` elements with undefined contents; or of zeros, which take no memory until they are written.
  func buffer<Element: BitwiseCopyable>(_ count: Int, of _: Element.Type = Element.self, isZero: Bool = false) -> Buffer<Element> {
    let (block, sizeClass) = free.take(count * MemoryLayout<Element>.stride, isUnwritten: isZero, allocate: allocate)
    if isPoisoned {
      block.initializeMemory(as: UInt8.self, repeating: 0xff, count: FreeBlocks<UnsafeMutableRawPointer>.byteCount(sizeClass))
    }
    return Buffer(block.bindMemory(to: Element.self, capacity: count), count, sizeClass, self, isZero: isZero)
  }
}

/// New memory, in large pages where it fills one.
private func allocate(_ bytes: Int) -> UnsafeMutableRawPointer {
  typealias Blocks = FreeBlocks<UnsafeMutableRawPointer>
  guard bytes >= Blocks.largePage else { return .allocate(byteCount: bytes, alignment: Blocks.unit) }
  let block = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: Blocks.largePage)
  POSIX.preferLargePages(block, count: bytes)
  return block
}

/// Memory of a CPU backend, which returns to its pool when nobody holds it any more.
public final class Buffer<Element: BitwiseCopyable> {
  /// Number of elements.
  public let count: Int
  let pointer: UnsafeMutablePointer<Element>
  /// Bytes of zeros that take no memory: nobody has written them yet.
  private(set) var unwrittenBytes = 0
  private let sizeClass: Int
  private let pool: BufferPool

  fileprivate init(_ pointer: UnsafeMutablePointer<Element>, _ count: Int, _ sizeClass: Int, _ pool: BufferPool, isZero: Bool) {
    self.pointer = pointer
    self.count = count
    self.sizeClass = sizeClass
    self.pool = pool
    guard isZero else { return }
    unwrittenBytes = count * MemoryLayout<Element>.stride
    POSIX.clear(pointer, count: unwrittenBytes)
  }

  deinit {
    // All of the block, which may be longer than its buffer: the pool counts none of it any more.
    if unwrittenBytes > 0 { POSIX.discard(pointer, count: FreeBlocks<UnsafeMutableRawPointer>.byteCount(sizeClass)) }
    pool.free.put(UnsafeMutableRawPointer(pointer), sizeClass, unwritten: unwrittenBytes)
  }

  /// Zeros, whose memory is given back.
  func clear() {
    let bytes = count * MemoryLayout<Element>.stride
    POSIX.clear(pointer, count: bytes)
    pool.free.shrink(by: bytes - unwrittenBytes)
    unwrittenBytes = bytes
  }

  /// Says that so many bytes are about to be written.
  func write(_ bytes: Int) {
    let written = min(bytes, unwrittenBytes)
    unwrittenBytes -= written
    pool.free.refill(written) { POSIX.discard($0, count: $1) }
  }
}
