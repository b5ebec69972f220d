/// What a backend counts, so that tests can pin what a training step costs beside arithmetic.
public struct Counters: Equatable, Sendable {
  /// Buffers that the pool did not have and allocated. 0 per step after warm-up.
  public var poolMisses = 0
  /// The most bytes of memory that the pool's blocks took at once, lent or free.
  public var poolBytes = 0
  /// Copies made because an operation was to write into storage that somebody else held. 0 per step.
  public var sharedCopies = 0
  /// Bytes moved from the host to the device.
  public var bytesToDevice = 0
  /// Bytes moved from the device to the host.
  public var bytesToHost = 0
  /// Operations that were called, transfers included: what a GPU would launch.
  public var operations = 0
  /// Times that the host waited for the device: a download, or `synchronize`. 1 per step.
  public var waits = 0

  /// All zero.
  public init() {}

  /// What was counted between two readings.
  public static func - (later: Counters, earlier: Counters) -> Counters {
    var difference = Counters()
    difference.poolMisses = later.poolMisses - earlier.poolMisses
    difference.poolBytes = later.poolBytes - earlier.poolBytes
    difference.sharedCopies = later.sharedCopies - earlier.sharedCopies
    difference.bytesToDevice = later.bytesToDevice - earlier.bytesToDevice
    difference.bytesToHost = later.bytesToHost - earlier.bytesToHost
    difference.operations = later.operations - earlier.operations
    difference.waits = later.waits - earlier.waits
    return difference
  }
}
