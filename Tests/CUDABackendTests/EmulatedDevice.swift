import CCUDA
import CUDABackend
import CUDAEmulator

/// Opens devices that run the kernels on the processor.
enum EmulatedDevice {
  /// A device whose threads run in an order drawn from `seed`.
  static func open(seed: UInt64 = 0, isWatched: Bool = false, isIdle: Bool = false, hasProducts: Bool = false) throws -> CUDADevice {
    try counted(seed: seed, isWatched: isWatched, isIdle: isIdle, hasProducts: hasProducts).device
  }

  /// The same, with what was launched and moved so far.
  static func counted(seed: UInt64 = 0, isWatched: Bool = false, isIdle: Bool = false, hasProducts: Bool = false) throws
    -> (device: CUDADevice, counts: () -> emulator_counts)
  {
    let opened = emulator_open(emulator_options(seed: seed, is_watched: isWatched, is_idle: isIdle, has_products: hasProducts))
    guard let handle = opened.device else { throw NothingOpened() }
    let device = try CUDADevice(opened)
    // The device closes the handle when it goes, so whoever counts keeps it.
    return (device, { withExtendedLifetime(device) { emulator_counts(handle) } })
  }

  struct NothingOpened: Error {}
}
