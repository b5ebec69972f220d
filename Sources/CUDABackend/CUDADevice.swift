import CCUDA

/// What went wrong on a device, or why there is none.
public struct CUDAError: Error, Equatable, CustomStringConvertible {
  /// The sentence.
  public let description: String

  init(_ description: String) { self.description = description }
}

/// A device behind the table of its functions: a GPU, or the emulator of the tests.
public final class CUDADevice {
  let table: cuda_table
  let handle: OpaquePointer
  private var kernels: [KernelName: OpaquePointer] = [:]

  private struct KernelName: Hashable {
    let name: String
    let isDouble: Bool
  }

  /// A device that was opened elsewhere.
  public init(_ opened: cuda_opened) throws {
    guard let table = opened.table, let handle = opened.device else { throw CUDAError("no device was opened") }
    self.table = table.pointee
    self.handle = handle
  }

  /// A GPU of this machine: its driver, NVRTC, which compiles the kernels for it, and cuBLAS where there is one, all found when the
  /// program runs.
  ///
  /// - Parameters:
  ///   - number: which one, of those that `CUDA_VISIBLE_DEVICES` leaves.
  ///   - path: folders that are searched before the usual ones, separated by colons: of a toolkit, or of Python's packages
  ///     (`site-packages/nvidia`).
  ///   - cache: where compiled kernels are kept; nil to compile them each time.
  ///   - usesLibrary: whether products are cuBLAS's where it is found.
  /// - Throws: `CUDAError`, which lists what was looked for and where.
  public convenience init(number: Int = 0, path: String? = nil, cache: String? = nil, usesLibrary: Bool = true) throws {
    let (opened, why) = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 16_384) { text in
      text.initialize(repeating: 0)
      let opened = path.withOptionalCString { path in
        cache.withOptionalCString { cache in
          cuda_open(
            cuda_options(number: Int32(clamping: number), path: path, cache: cache, uses_library: usesLibrary), text.baseAddress!,
            text.count)
        }
      }
      return (opened, String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }
    guard opened.table != nil else { throw CUDAError(why.last == "\n" ? String(why.dropLast()) : why) }
    try self.init(opened)
  }

  deinit { table.close(handle) }

  /// What the device is called.
  public var description: String { String(cString: table.describe(handle)) }

  /// Throws what the device says after a call that failed.
  func check(_ status: Int32) throws {
    if status != 0 { throw CUDAError(String(cString: table.error(handle))) }
  }

  /// Enqueues a kernel with arguments by value, in the order of its parameters.
  func launch<each Argument: BitwiseCopyable>(
    _ name: String, isDouble: Bool, _ grid: cuda_grid, _ arguments: repeat each Argument
  ) throws {
    let kernel = try kernel(name, isDouble: isDouble)
    var count = 0
    for _ in repeat (each Argument).self { count += 1 }
    let place = 32  // bytes of the largest argument
    try withUnsafeTemporaryAllocation(byteCount: place * count, alignment: 16) { memory in
      try withUnsafeTemporaryAllocation(of: cuda_argument.self, capacity: count) { list in
        guard let base = memory.baseAddress, let first = list.baseAddress else { return }
        var i = 0
        for argument in repeat each arguments {
          let size = MemoryLayout.stride(ofValue: argument)  // as C counts a structure, with what pads its end
          precondition(size <= place, "an argument of \(name) is too large")
          withUnsafeBytes(of: argument) { (base + i * place).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
          list[i] = cuda_argument(value: UnsafeRawPointer(base + i * place), size: UInt32(size))
          i += 1
        }
        try check(table.launch(handle, kernel, grid, first, Int32(count)))
      }
    }
  }

  private func kernel(_ name: String, isDouble: Bool) throws -> OpaquePointer {
    let key = KernelName(name: name, isDouble: isDouble)
    if let kernel = kernels[key] { return kernel }
    var kernel: OpaquePointer?
    try check(table.kernel(handle, name, isDouble, &kernel))
    guard let kernel else { throw CUDAError("the device gave no kernel \(name)") }
    kernels[key] = kernel
    return kernel
  }
}

extension String? {
  /// The C string for as long as `body` runs; null for nil.
  fileprivate func withOptionalCString<R>(_ body: (UnsafePointer<CChar>?) throws -> R) rethrows -> R {
    guard let self else { return try body(nil) }
    return try self.withCString { try body($0) }
  }
}
