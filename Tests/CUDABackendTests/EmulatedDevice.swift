import CUDABackend
import CUDAEmulator

/// Opens devices that run the kernels on the processor.
enum EmulatedDevice {
  /// A device whose threads run in an order drawn from `seed`.
  static func open(seed: UInt64 = 0, isWatched: Bool = false, isIdle: Bool = false, hasProducts: Bool = false) throws -> CUDADevice {
    try CUDADevice(emulator_open(emulator_options(seed: seed, is_watched: isWatched, is_idle: isIdle, has_products: hasProducts)))
  }
}
