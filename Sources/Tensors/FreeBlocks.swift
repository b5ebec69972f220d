/// Free blocks of a pool of memory by size class, four classes per octave: what a pool on the host and one on a device have in common.
public struct FreeBlocks<Block> {
  /// Blocks that had to be allocated because none of their class was free.
  public private(set) var misses = 0
  /// Whether the longest batch has been seen. Before, a block serves its own class alone: lending it to a smaller buffer
  /// would only make the next large one be allocated twice.
  public var isSettled = false
  private var free: [[Block]] = []

  /// The unit of sizes, in bytes, to which hosts align their blocks.
  public static var unit: Int { 64 }
  /// How many classes up a settled pool takes a free block from: four octaves.
  private static var reach: Int { 16 }

  /// No blocks.
  public init() {}

  /// Every free block.
  public var blocks: some Sequence<Block> { free.joined() }

  /// A block of at least `bytes` and its class; the one that came back last first, which may still be in a cache.
  @_specialize(where Block == UnsafeMutableRawPointer)
  public mutating func take(_ bytes: Int, allocate: (_ bytes: Int) throws -> Block) rethrows -> (block: Block, sizeClass: Int) {
    let fitting = Self.sizeClass(bytes)
    while free.count <= fitting + Self.reach { free.append([]) }
    // A shorter batch takes the longest one's blocks: the smallest that is free, within reach.
    let sizeClass = (fitting...fitting + (isSettled ? Self.reach : 0)).first { !free[$0].isEmpty } ?? fitting
    if let reused = free[sizeClass].popLast() { return (reused, sizeClass) }
    misses += 1
    return (try allocate(Self.byteCount(sizeClass)), sizeClass)
  }

  /// A block comes back.
  @_specialize(where Block == UnsafeMutableRawPointer)
  public mutating func put(_ block: Block, _ sizeClass: Int) { free[sizeClass].append(block) }

  /// The class whose size is the least that holds `bytes`: 1, 2, 3, 4 units, then (5 … 8)·2ᵉ units.
  public static func sizeClass(_ bytes: Int) -> Int {
    let units = max(1, (bytes + unit - 1) / unit)
    if units <= 4 { return units - 1 }
    let e = Int.bitWidth - 1 - (units - 1).leadingZeroBitCount - 2
    return 4 + 4 * e + ((units - 1) >> e) - 4
  }

  /// Bytes of a block of the class.
  public static func byteCount(_ sizeClass: Int) -> Int {
    if sizeClass < 4 { return unit * (sizeClass + 1) }
    let (e, step) = (sizeClass - 4).quotientAndRemainder(dividingBy: 4)
    return unit * ((5 + step) << e)
  }
}
