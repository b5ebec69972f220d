import CCUDA
import Tensors

/// Memory of a device.
///
/// A block comes back when its ``DeviceBuffer`` is released and may be handed out at once, although work that reads it is still
/// enqueued: all work runs in order on one stream, so whoever writes it next comes later.
final class DevicePool {
  let device: CUDADevice
  /// Fills what it hands out with NaN (all bits set), so that a test finds what nobody wrote.
  let isPoisoned: Bool
  var free = FreeBlocks<cuda_address>()

  init(_ device: CUDADevice, isPoisoned: Bool) {
    self.device = device
    self.isPoisoned = isPoisoned
  }

  deinit {
    for block in free.blocks { _ = device.table.release(device.handle, block) }
  }

  /// A buffer of `bytes` with undefined contents.
  func buffer(_ bytes: Int) throws -> DeviceBuffer {
    let (block, sizeClass) = try free.take(bytes) { bytes in
      var address: cuda_address = 0
      try device.check(device.table.allocate(device.handle, bytes, &address))
      return address
    }
    try device.check(device.table.use(device.handle, block, bytes, isPoisoned))
    return DeviceBuffer(block, sizeClass, self)
  }

  fileprivate func put(_ block: cuda_address, _ sizeClass: Int) {
    _ = device.table.use(device.handle, block, 0, false)
    free.put(block, sizeClass)
  }
}

/// Memory of a device, which returns to its pool when nobody holds it any more.
public final class DeviceBuffer {
  let address: cuda_address
  private let sizeClass: Int
  private let pool: DevicePool?

  fileprivate init(_ address: cuda_address, _ sizeClass: Int, _ pool: DevicePool) {
    self.address = address
    self.sizeClass = sizeClass
    self.pool = pool
  }

  /// What stands for memory where a device failed to give any; the failure is reported at the next wait.
  init(nowhere: Void) { (address, sizeClass, pool) = (0, 0, nil) }

  deinit { pool?.put(address, sizeClass) }
}
