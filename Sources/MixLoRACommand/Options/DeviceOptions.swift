import ArgumentParser
import CPUBackend
import CUDABackend
import Platform
import Tensors

/// Where a command computes.
struct DeviceOptions: ParsableArguments {
  @Option(help: "Where to compute: cpu, or cuda, an NVIDIA GPU.")
  var backend = Device.cpu

  /// The backend that was chosen, with so many threads of the processor.
  ///
  /// Its type is hidden from who calls, so that the compiler makes one copy of a command and not one for each type; what has to be fast
  /// lies in other modules.
  @inline(never)
  func open(_ precision: Precision, threads: Int) throws -> any ProfilingBackend {
    switch (backend, precision) {
    case (.cpu, .float32): return CPUFloat(threads: threads)
    case (.cpu, .float64): return CPUDouble(threads: threads)
    case (.cuda, .float32): return try CUDAFloat(GPU.open())
    case (.cuda, .float64): return try CUDADouble(GPU.open())
    }
  }
}

/// Where a run computes.
enum Device: String, ExpressibleByArgument, CaseIterable {
  case cpu
  case cuda
}

/// A command that computes, on what the user chooses.
protocol ComputingCommand: ParsableCommand {
  var device: DeviceOptions { get }
  var common: CommonOptions { get }
  /// Does the work.
  func compute<B: ProfilingBackend>(on backend: B) throws
}

extension ComputingCommand {
  /// Refuses what this process cannot hold; what a GPU cannot hold, it says itself.
  func requireMemory(_ bytes: Double, for what: String, input: String) throws {
    if device.backend == .cpu { try Machine.requireMemory(bytes, for: what, input: input) }
  }

  /// Does the work on the device that was chosen.
  ///
  /// - Parameter threads: those of the processor; nil for what the options say.
  func compute(in precision: Precision = .float32, threads: Int? = nil) throws {
    try compute(on: device.open(precision, threads: threads ?? common.threadCount))
  }
}

/// The GPU, as the environment describes it.
enum GPU {
  /// Opens it: `MIXLORA_CUDA_PATH` has folders of its libraries, `MIXLORA_CUDA_PRODUCTS=own` leaves cuBLAS out. Compiled kernels are kept
  /// in the user's cache.
  ///
  /// - Throws: `CUDAError`, which lists what was looked for and where.
  static func open() throws -> CUDADevice {
    try CUDADevice(
      path: POSIX.environment("MIXLORA_CUDA_PATH"), cache: cache, usesLibrary: POSIX.environment("MIXLORA_CUDA_PRODUCTS") != "own")
  }

  /// Where compiled kernels are kept; nil where the user has no home.
  private static var cache: String? {
    for (name, below) in [("XDG_CACHE_HOME", "/mixlora/kernels"), ("HOME", "/.cache/mixlora/kernels")] {
      if let folder = POSIX.environment(name), folder.hasPrefix("/") { return folder + below }
    }
    return nil
  }
}
