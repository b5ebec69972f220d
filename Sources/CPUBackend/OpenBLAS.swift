import COpenBLAS

/// What the linked OpenBLAS says about itself, and how this module was built.
public enum OpenBLAS {
  /// Version and build options, such as `OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH … MAX_THREADS=64`.
  public static var configuration: String { String(cString: openblas_get_config()) }
  /// The kernels that it chose for this processor, such as `Zen` or `Haswell`.
  public static var coreType: String { String(cString: openblas_get_corename()) }
  /// How it was built to thread: `none`, `threads` or `OpenMP`. Here it runs on one thread of ours at a time.
  public static var threading: String {
    switch openblas_get_parallel() {
    case 0: "none"
    case 1: "threads"
    case 2: "OpenMP"
    default: "unknown"
    }
  }
  /// Whether our own kernels were compiled for AVX2 and FMA.
  public static var kernelsUseAVX2: Bool { MIXLORA_AVX2 == 1 }
}
