/// Memory by size class, four classes per octave, every block aligned to 64 bytes.
///
/// A block comes back when its ``Buffer`` is released and is handed out again first, while it is still in cache.
/// Not for several threads at once: buffers are taken and released where the backend's one caller runs.
final class BufferPool {
  /// Blocks that had to be allocated because none of their class was free.
  private(set) var misses = 0
  /// Fills what `empty` hands out with NaN (all bits set), so that a test finds what nobody wrote.
  let isPoisoned: Bool
  private var free: [[UnsafeMutableRawPointer]] = []

  static let alignment = 64
  /// How many classes up a settled pool takes a free block from: four octaves.
  private static let reach = 16
  /// Whether the longest batch has been seen. Before, a block serves its own class alone: lending it to a smaller buffer
  /// would only make the next large one be allocated twice.
  var isSettled = false

  init(isPoisoned: Bool) { self.isPoisoned = isPoisoned }

  deinit {
    for blocks in free {
      for block in blocks { block.deallocate() }
    }
  }

  /// A buffer of `count` elements with undefined contents.
  func buffer<Element: BitwiseCopyable>(_ count: Int, of _: Element.Type = Element.self) -> Buffer<Element> {
    let fitting = Self.sizeClass(count * MemoryLayout<Element>.stride)
    while free.count <= fitting + Self.reach { free.append([]) }
    // A shorter batch takes the longest one's blocks: the smallest that is free, within reach.
    let sizeClass = (fitting...fitting + (isSettled ? Self.reach : 0)).first { !free[$0].isEmpty } ?? fitting
    let block: UnsafeMutableRawPointer
    if let reused = free[sizeClass].popLast() {
      block = reused
    } else {
      misses += 1
      block = .allocate(byteCount: Self.byteCount(sizeClass), alignment: Self.alignment)
    }
    if isPoisoned { block.initializeMemory(as: UInt8.self, repeating: 0xff, count: Self.byteCount(sizeClass)) }
    return Buffer(block.bindMemory(to: Element.self, capacity: count), count, sizeClass, self)
  }

  fileprivate func put(_ block: UnsafeMutableRawPointer, _ sizeClass: Int) { free[sizeClass].append(block) }

  /// The class whose size is the least that holds `bytes`: 1, 2, 3, 4 units of 64 bytes, then (5 … 8)·2ᵉ units.
  static func sizeClass(_ bytes: Int) -> Int {
    let units = max(1, (bytes + alignment - 1) / alignment)
    if units <= 4 { return units - 1 }
    let e = Int.bitWidth - 1 - (units - 1).leadingZeroBitCount - 2
    return 4 + 4 * e + ((units - 1) >> e) - 4
  }

  /// Bytes of a block of the class.
  static func byteCount(_ sizeClass: Int) -> Int {
    if sizeClass < 4 { return alignment * (sizeClass + 1) }
    let (e, step) = (sizeClass - 4).quotientAndRemainder(dividingBy: 4)
    return alignment * ((5 + step) << e)
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

  deinit { pool.put(UnsafeMutableRawPointer(pointer), sizeClass) }
}
