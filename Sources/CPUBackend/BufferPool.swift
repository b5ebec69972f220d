import Tensors

/// Memory of a CPU backend, every block aligned to 64 bytes.
///
/// A block comes back when its ``Buffer`` is released and is handed out again first, while it is still in cache.
/// Not for several threads at once: buffers are taken and released where the backend's one caller runs.
final class BufferPool {
  /// Fills what `empty` hands out with NaN (all bits set), so that a test finds what nobody wrote.
  let isPoisoned: Bool
  var free = FreeBlocks<UnsafeMutableRawPointer>()

  init(isPoisoned: Bool) { self.isPoisoned = isPoisoned }

  deinit {
    for block in free.blocks { block.deallocate() }
  }

  /// A buffer of `count` elements with undefined contents.
  func buffer<Element: BitwiseCopyable>(_ count: Int, of _: Element.Type = Element.self) -> Buffer<Element> {
    let (block, sizeClass) = free.take(count * MemoryLayout<Element>.stride) {
      .allocate(byteCount: $0, alignment: FreeBlocks<UnsafeMutableRawPointer>.unit)
    }
    if isPoisoned {
      block.initializeMemory(as: UInt8.self, repeating: 0xff, count: FreeBlocks<UnsafeMutableRawPointer>.byteCount(sizeClass))
    }
    return Buffer(block.bindMemory(to: Element.self, capacity: count), count, sizeClass, self)
  }
}

/// Memory of a CPU backend, which returns to its pool when nobody holds it any more.
public final class Buffer<Element: BitwiseCopyable> {
  /// Number of elements.
  public let count: Int
  let pointer: UnsafeMutablePointer<Element>
  private let sizeClass: Int
  private let pool: BufferPool

  fileprivate init(_ pointer: UnsafeMutablePointer<Element>, _ count: Int, _ sizeClass: Int, _ pool: BufferPool) {
    self.pointer = pointer
    self.count = count
    self.sizeClass = sizeClass
    self.pool = pool
  }

  deinit { pool.free.put(UnsafeMutableRawPointer(pointer), sizeClass) }
}
