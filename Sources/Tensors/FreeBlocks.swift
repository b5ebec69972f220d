/// Free blocks of a pool of memory by size class, four classes per octave: what a pool on the host and one on a device have in common.
public struct FreeBlocks<Block> {
  /// Blocks that had to be allocated because none of their class was free.
  public private(set) var misses = 0
  /// Bytes of memory that the blocks take, lent or free.
  public private(set) var bytes = 0
  /// The most that they took at once.
  public private(set) var peakBytes = 0
  /// Whether the longest batch has been seen. Before, a block serves its own class alone: lending it to a smaller buffer
  /// would only make the next large one be allocated twice.
  public var isSettled = false
  private var free: [[Block]] = []
  private var emptied: [[(block: Block, missing: Int)]] = []  // free ones, and how many of their bytes were given back

  /// The unit of sizes, in bytes, to which hosts align their blocks.
  public static var unit: Int { 64 }
  /// Bytes of a large page, to which hosts align blocks that fill one.
  public static var largePage: Int { 1 << 21 }
  /// Free bytes of a class below which none of its blocks is given back: what is small is not worth the system's time.
  private static var leastGivenBack: Int { 1 << 20 }
  /// How many classes up a settled pool takes a free block from: four octaves.
  private static var reach: Int { 16 }

  /// No blocks.
  public init() {}

  /// Every free block.
  public var blocks: some Sequence<Block> { (free + emptied.map { $0.map(\.block) }).joined() }

  /// A block of at least `bytes` and its class; the one that came back last first, which may still be in a cache.
  ///
  /// - Parameter isUnwritten: whether its bytes take no memory for now: zeros that nobody has written yet.
  @_specialize(where Block == UnsafeMutableRawPointer)
  public mutating func take(
    _ bytes: Int, isUnwritten: Bool = false, allocate: (_ bytes: Int) throws -> Block
  ) rethrows -> (block: Block, sizeClass: Int) {
    let fitting = Self.sizeClass(bytes)
    while free.count <= fitting + Self.reach {
      free.append([])
      emptied.append([])
    }
    // A shorter batch takes the longest one's blocks: the smallest that is free, within reach.
    for sizeClass in fitting...fitting + (isSettled ? Self.reach : 0) {
      if let reused = free[sizeClass].popLast() {
        if isUnwritten { shrink(by: bytes) }
        return (reused, sizeClass)
      }
      guard let reused = emptied[sizeClass].popLast() else { continue }
      grow(by: reused.missing - (isUnwritten ? bytes : 0))
      return (reused.block, sizeClass)
    }
    misses += 1
    let block = try allocate(Self.byteCount(fitting))
    grow(by: Self.byteCount(fitting) - (isUnwritten ? bytes : 0))
    return (block, fitting)
  }

  private mutating func grow(by count: Int) {
    bytes += count
    peakBytes = max(peakBytes, bytes)
  }

  /// So many bytes of a lent block take no memory any more: zeros that nobody has written yet.
  public mutating func shrink(by count: Int) { self.bytes -= count }

  /// So many bytes of such zeros are about to be written: where more would then be taken than ever before, free blocks are given back
  /// instead, the largest first, and at first of those that fill large pages these alone: one comes again by one fault, where small ones
  /// take 512.
  public mutating func refill(_ count: Int, giveBack: (Block, _ bytes: Int) -> Void) {
    while bytes + count > peakBytes {
      if let sizeClass = free.indices.last(where: { freeBytes($0) >= Self.leastGivenBack }) {
        let block = free[sizeClass].removeFirst()  // the one that waits longest
        let size = Self.byteCount(sizeClass)
        let missing = size < Self.largePage ? size : size / Self.largePage * Self.largePage
        giveBack(block, missing)
        emptied[sizeClass].append((block, missing))
        bytes -= missing
      } else if let sizeClass = emptied.indices.last(where: { rest($0).bytes >= Self.leastGivenBack }), let i = rest(sizeClass).first {
        let size = Self.byteCount(sizeClass)
        giveBack(emptied[sizeClass][i].block, size)
        bytes -= size - emptied[sizeClass][i].missing
        emptied[sizeClass][i].missing = size
      } else {
        break
      }
    }
    grow(by: count)
  }

  /// What the emptied blocks of a class still take, and the first that takes something.
  private func rest(_ sizeClass: Int) -> (bytes: Int, first: Int?) {
    let size = Self.byteCount(sizeClass)
    return (emptied[sizeClass].reduce(0) { $0 + size - $1.missing }, emptied[sizeClass].firstIndex { $0.missing < size })
  }

  private func freeBytes(_ sizeClass: Int) -> Int { free[sizeClass].count * Self.byteCount(sizeClass) }

  /// A block comes back; one of which some bytes were never written gives the others back, too, all of itself.
  @_specialize(where Block == UnsafeMutableRawPointer)
  public mutating func put(_ block: Block, _ sizeClass: Int, unwritten: Int = 0) {
    if unwritten == 0 { return free[sizeClass].append(block) }
    emptied[sizeClass].append((block, Self.byteCount(sizeClass)))
    bytes -= Self.byteCount(sizeClass) - unwritten
  }

  /// The class whose size is the least that holds `bytes`: 1, 2, 3, 4 units, then (5 … 8)·2ᵉ units.
  public static func sizeClass(_ bytes: Int) -> Int {
    let units = max(1, (bytes + unit - 1) / unit)
    if units <= 4 { return units - 1 }
    let e = Int.bitWidth - 1 - (units - 1).leadingZeroBitCount - 2
    return 4 + 4 * e + ((units - 1) >> e) - 4
  }

  /// Bytes of the block that `bytes` get.
  public static func blockBytes(_ bytes: Int) -> Int { byteCount(sizeClass(bytes)) }

  /// Bytes of a block of the class.
  public static func byteCount(_ sizeClass: Int) -> Int {
    if sizeClass < 4 { return unit * (sizeClass + 1) }
    let (e, step) = (sizeClass - 4).quotientAndRemainder(dividingBy: 4)
    return unit * ((5 + step) << e)
  }
}
