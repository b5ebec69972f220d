import CPUBackend
import Checkpoints
import Platform
import Tensors

/// The checks of `mixlora doctor`. What depends on the machine stands here, what depends on numbers in `Doctor+Numbers`.
struct Doctor {
  let threads: Int
  /// Where numbers are computed.
  var device = Device.cpu

  var checks: [DoctorCheck] {
    [
      DoctorCheck("version") { .ok("mixlora \(version), \(Self.build)") },
      DoctorCheck("system") { .ok(POSIX.systemName) },
      DoctorCheck("processor", processor),
      DoctorCheck("cores", cores),
      DoctorCheck("memory", memory),
      DoctorCheck("current folder") { try folder(".") },
      DoctorCheck("temporary folder") { try folder(Machine.temporaryFolder) },
      DoctorCheck("OpenBLAS", openBLAS),
      DoctorCheck("speed", speed),
    ] + (device == .cpu ? numberChecks : gpuChecks)
  }

  private static var build: String {
    #if DEBUG
      "debug build: for speed, swift build -c release"
    #else
      "release build"
    #endif
  }

  /// Whether this program's own kernels run here, and whether they could be faster.
  private func processor() -> DoctorCheck.Result {
    let kernels = "\(POSIX.processorName); our kernels are built \(OpenBLAS.kernelsUseAVX2 ? "with" : "without") AVX2"
    switch (Machine.hasAVX2, OpenBLAS.kernelsUseAVX2) {
    case (false?, true): return .fail(kernels + ", which this processor lacks: build here, or with MIXLORA_NO_AVX2=1")
    case (true?, false): return .ok(kernels + ", which this processor has: build here without MIXLORA_NO_AVX2 for faster ones")
    default: return .ok(kernels)
    }
  }

  private func cores() -> DoctorCheck.Result {
    let (usable, present) = (POSIX.usableCores, POSIX.presentCores)
    var detail = "\(usable) of \(present) may be used; \(threads) thread\(threads == 1 ? "" : "s") here"
    if usable < present { detail += "; affinity (taskset) or a cgroup's quota (cpu.max) keeps the others" }
    if usable == 1 { detail += "; training on one core is slow" }
    return .ok(detail)
  }

  private func memory() -> DoctorCheck.Result {
    func gigabytes(_ bytes: Double) -> String { "\(fixed(bytes / 1_073_741_824, 1)) GiB" }
    var detail = gigabytes(POSIX.memoryBytes)
    var free = POSIX.memoryBytes
    if let available = Machine.availableBytes {
      detail += ", \(gigabytes(available)) available"
      free = available
    }
    if let limit = Machine.memoryLimit {
      detail += ", limited to \(gigabytes(limit)) by a cgroup"
      free = min(free, limit)
    }
    if free < 3 * 1_073_741_824 {
      detail += "; little: a model of 135 M parameters trains in 1.4 GiB, less with --recompute, a smaller --batch and --length"
    }
    return .ok(detail)
  }

  private func folder(_ path: String) throws -> DoctorCheck.Result {
    // A name that nobody has: only whether a file could be made is asked.
    do { try AtomicFile.check(path + "/.mixlora-doctor") } catch {
      return .fail("\(error); choose --out elsewhere")
    }
    guard let free = POSIX.freeBytes(path) else { return .ok("\(path) can be written to") }
    let detail = "\(path) can be written to, \(fixed(free / 1_073_741_824, 1)) GiB free"
    return .ok(free < 1_073_741_824 ? detail + "; little: a checkpoint takes three times the adapter, and two are kept" : detail)
  }

  /// OpenBLAS chooses its kernels by the processor, and takes old ones where it does not know it.
  private func openBLAS() -> DoctorCheck.Result {
    let words = OpenBLAS.configuration.split(separator: " ")
    let release = words.count >= 2 ? words[1] : "?"
    var detail = "\(release), kernels for \(OpenBLAS.coreType), built for \(OpenBLAS.threading); it runs on one thread of ours at a time"
    if Machine.hasAVX2 == true, Self.oldCores.contains(OpenBLAS.coreType) {
      detail +=
        "; those do without AVX2 and are several times slower than this processor: "
        + (POSIX.environment("OPENBLAS_CORETYPE") == nil
          ? "set OPENBLAS_CORETYPE=Haswell, or install a newer OpenBLAS" : "unset OPENBLAS_CORETYPE")
    }
    return .ok(detail)
  }

  /// OpenBLAS's names of x86 cores without AVX2.
  private static let oldCores: Set<String> = [
    "Katmai", "Coppermine", "Northwood", "Prescott", "Banias", "Core2", "Penryn", "Dunnington", "Nehalem", "Atom", "Athlon", "Opteron",
    "Opteron_SSE3", "Barcelona", "Bobcat", "Sandybridge", "Bulldozer", "Piledriver", "Nano", "Unknown", "Generic",
  ]

  private func speed() -> DoctorCheck.Result {
    let alone = Self.gigaflops(threads: 1)
    guard threads > 1 else { return .ok("\(fixed(alone, 0)) GFLOP/s in float32") }
    let all = Self.gigaflops(threads: threads)
    var detail = "\(fixed(alone, 0)) GFLOP/s in float32 on one thread, \(fixed(all, 0)) on \(threads)"
    if all < 1.2 * alone { detail += "; more threads bring little: the cores may be busy or share one core's units" }
    return .ok(detail)
  }

  /// The best of some products of 768 by 768, a third of a second of them.
  private static func gigaflops(threads: Int) -> Double {
    let (n, backend) = (768, CPUFloat(threads: threads))
    let a = backend.random(Shape(n, n), .normal(deviation: 1), RandomKey(seed: 1))
    var c = backend.zeros(Shape(n, n))
    var best = Double.infinity
    let end = POSIX.seconds + 0.3
    repeat {
      let start = POSIX.seconds
      backend.gemm(1, a.operand, a.operand, 0, into: &c, rows: nil)
      best = min(best, POSIX.seconds - start)
    } while POSIX.seconds < end
    return 2 * Double(n * n * n) / best * 1e-9
  }
}
