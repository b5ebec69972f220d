// swift-tools-version: 6.2
import PackageDescription

#if canImport(Glibc)
  import Glibc
#endif

/// AVX2, FMA and F16C where this very machine has them and nobody depends on us: a binary then runs where it was built.
/// `MIXLORA_NO_AVX2=1` switches it off.
let isRoot = !Context.packageDirectory.contains("/checkouts/")
let vectorFlags: [String] =
  isRoot && Context.environment["MIXLORA_NO_AVX2"] == nil && machineHasAVX2() ? ["-Xcc", "-mavx2", "-Xcc", "-mfma", "-Xcc", "-mf16c"] : []

/// Reads /proc/cpuinfo; false where there is none or the processor is another.
func machineHasAVX2() -> Bool {
  #if os(Linux) && arch(x86_64)
    guard let file = fopen("/proc/cpuinfo", "r") else { return false }
    defer { fclose(file) }
    var buffer = [CChar](repeating: 0, count: 4096)
    while fgets(&buffer, Int32(buffer.count), file) != nil {
      let words = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(
        whereSeparator: \.isWhitespace)
      if words.first == "flags" { return ["avx2", "fma", "f16c"].allSatisfy(words.contains) }
    }
  #endif
  return false
}

/// Kernels and parsers are optimized in debug builds too: an unspecialised generic kernel costs a hundredfold.
let optimized: [SwiftSetting] = [
  .unsafeFlags(["-O", "-wmo", "-num-threads", "2", "-disable-batch-mode"], .when(configuration: .debug))
]

/// Relative relocations in a tenth of their size, which the C library knows from version 2.36 on.
func libraryPacksRelocations() -> Bool {
  #if canImport(Glibc)
    var buffer = [CChar](repeating: 0, count: 64)
    confstr(Int32(_CS_GNU_LIBC_VERSION), &buffer, buffer.count)
    let version = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)  // "glibc 2.36"
    return version.split(whereSeparator: { " .".contains($0) }).compactMap { Int($0) }.lexicographicallyPrecedes([2, 36]) == false
  #else
    return false
  #endif
}

/// A target without code for the settings of the products that name it: those of a target that tests need too would be the tests' as well.
func links(_ name: String, _ settings: [LinkerSetting]) -> Target {
  .target(name: "\(name)Links", path: "Sources/Links/\(name)", publicHeadersPath: ".", linkerSettings: settings)
}

/// A small program: what nothing calls is left out (Swift's static library asks for the contrary), equal functions stand once.
let smallLinks: [LinkerSetting] = [
  .unsafeFlags(
    ["-use-ld=lld", "-Xlinker", "--no-export-dynamic", "-Xlinker", "--icf=all"]
      + (libraryPacksRelocations() ? ["-Xlinker", "-z", "-Xlinker", "pack-relative-relocs"] : []),
    .when(platforms: [.linux], configuration: .release))
]

/// The emulator's kernels; with fused multiply-adds where the processor has them, because NVRTC forms them too.
let hostKernelFlags = ["-O2", "-Wno-unused-function"] + (vectorFlags.isEmpty ? [] : ["-mfma"])

let package = Package(
  name: "MixLoRA",
  platforms: [.macOS(.v15)],
  products: [
    .library(name: "MixLoRA", targets: ["MixLoRA"]),
    // Budgets, named tensors and naive definitions for other people's tests, without the rest.
    .library(name: "Conformance", targets: ["Conformance"]),
    .executable(name: "mixlora", targets: ["MixLoRACommand", "SmallLinks"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-numerics", from: "1.1.0"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.0"),
  ],
  targets: [
    .systemLibrary(name: "COpenBLAS"),
    // Inline functions alone.
    .systemLibrary(name: "CVectors"),
    .target(name: "CEmbedded", exclude: ["Demo", "Capture"]),
    .target(name: "CExplorer", exclude: ["Page"]),
    .target(
      name: "Platform",
      dependencies: [
        .product(name: "RealModule", package: "swift-numerics"), .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: optimized),
    .target(name: "JSON", dependencies: ["Platform"], swiftSettings: optimized),
    .target(name: "Templates", dependencies: ["JSON", "Platform"], swiftSettings: optimized),
    .target(name: "Tensors", dependencies: ["CVectors"]),
    .target(
      name: "CPUBackend", dependencies: ["Platform", "Tensors", "COpenBLAS", "CVectors"],
      swiftSettings: optimized + (vectorFlags.isEmpty ? [] : [.unsafeFlags(vectorFlags)]),
      // Debian has LAPACK's C interface in a library of its own; elsewhere it is in OpenBLAS.
      linkerSettings: [.linkedLibrary("lapacke", .when(platforms: [.linux]))]),
    // The table of a GPU's functions and the text of its kernels; no header and no library of CUDA is needed to build it.
    .target(name: "CCUDA", exclude: ["kernels"]),
    .target(name: "CUDABackend", dependencies: ["Platform", "Tensors", "CCUDA"], swiftSettings: optimized),
    // The table of MPI's functions, and ranks that add up in one order; no header and no library of MPI is needed to build it.
    .target(name: "CMPI"),
    .target(name: "Collectives", dependencies: ["Platform", "CMPI"], swiftSettings: optimized),
    .target(name: "Layers", dependencies: ["Platform", "Tensors"]),
    .target(name: "Checkpoints", dependencies: ["JSON", "Platform", "Tensors"], swiftSettings: optimized),
    .target(name: "Decoders", dependencies: ["Layers", "Checkpoints"]),
    .target(
      name: "Tokenization", dependencies: ["Checkpoints", "Templates"], exclude: ["Tables/make_tables.py"], swiftSettings: optimized),
    .target(name: "Samples", dependencies: ["Layers", "Tokenization"]),
    .target(name: "Evaluation", dependencies: ["Collectives", "Decoders", "Samples"]),
    .target(name: "Training", dependencies: ["Platform", "Collectives", "Evaluation", "Traces"]),
    .target(name: "Generation", dependencies: ["Platform", "Decoders", "Tokenization"]),
    .target(name: "Traces", dependencies: ["Decoders"]),
    .target(name: "Stepping", dependencies: ["Platform", "Traces", "Training"], swiftSettings: optimized),
    .target(name: "Explaining", dependencies: ["CExplorer", "Platform", "Stepping"], swiftSettings: optimized),
    .target(name: "Conformance", dependencies: ["Platform", "Decoders", "Traces"], swiftSettings: optimized),
    .target(
      name: "Comparison", dependencies: ["Platform", "Checkpoints", "Decoders", "Traces", "Training", "Conformance"],
      swiftSettings: optimized),
    .target(
      name: "MixLoRA",
      dependencies: [
        "Platform", "Tensors", "CPUBackend", "CUDABackend", "Collectives", "Layers", "Checkpoints", "Decoders", "Tokenization", "Samples",
        "Evaluation", "Training", "Generation", "Traces", "Stepping", "Explaining", "Conformance", "Comparison",
      ]),
    .executableTarget(
      name: "MixLoRACommand",
      dependencies: [
        "CEmbedded", "Platform", "CPUBackend", "CUDABackend", "Collectives", "Decoders", "Tokenization", "Samples", "Evaluation",
        "Training",
        "Generation", "Traces", "Stepping", "Explaining", "Conformance", "Comparison",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),
    links("Small", smallLinks),
    .testTarget(name: "RuleTests"),
    .testTarget(name: "PlatformTests", dependencies: ["Platform"]),
    .testTarget(name: "CPUBackendTests", dependencies: ["Platform", "CPUBackend", "Conformance"]),
    // The kernels on the processor, behind the table of a GPU: compiled for the host, with and without a watch over loads and stores.
    .target(
      name: "CUDAKernels", dependencies: ["CCUDA"], path: "Tests/CUDAKernels",
      cxxSettings: [.headerSearchPath("../CUDAEmulator"), .unsafeFlags(hostKernelFlags)]),
    .target(
      name: "CUDAWatchedKernels", dependencies: ["CCUDA"], path: "Tests/CUDAWatchedKernels",
      cxxSettings: [
        .headerSearchPath("../CUDAEmulator"), .headerSearchPath("../CUDAKernels"),
        .unsafeFlags(hostKernelFlags + ["-fsanitize-coverage=func,trace-pc-guard,trace-loads,trace-stores"]),
      ]),
    .target(
      name: "CUDAEmulator", dependencies: ["CCUDA", "COpenBLAS", "CUDAKernels", "CUDAWatchedKernels"], path: "Tests/CUDAEmulator",
      cxxSettings: [.headerSearchPath("."), .unsafeFlags(["-O2"])]),
    .testTarget(
      name: "CUDABackendTests",
      dependencies: [
        "CPUBackend", "CUDABackend", "CUDAEmulator", "Decoders", "Traces", "Training", "Conformance", "TestModels",
      ]),
    .testTarget(name: "ConformanceTests", dependencies: ["Platform", "CPUBackend", "Conformance"]),
    .target(name: "TestModels", dependencies: ["Decoders", "Traces", "Training", "Conformance"], path: "Tests/TestModels"),
    .testTarget(
      name: "CommandLineTests",
      dependencies: [
        "MixLoRACommand", "Checkpoints", "Training", "Conformance", "TestModels", "HostileCases",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      exclude: ["Snapshots"]),
    .target(name: "HostileCases", dependencies: ["Checkpoints"], path: "Tests/HostileCases"),
    .testTarget(name: "CheckpointsTests", dependencies: ["JSON", "Platform", "Checkpoints", "HostileCases"]),
    .testTarget(name: "TemplatesTests", dependencies: ["JSON", "Platform", "Templates"]),
    .testTarget(name: "TokenizationTests", dependencies: ["Tokenization", "HostileCases"]),
    .testTarget(name: "LayersTests", dependencies: ["CPUBackend", "Layers", "Decoders", "Traces", "Conformance", "TestModels"]),
    .testTarget(name: "DecodersTests", dependencies: ["CPUBackend", "Decoders", "Tokenization", "HostileCases", "TestModels"]),
    .testTarget(name: "TracesTests", dependencies: ["CPUBackend", "Traces", "Training", "Conformance", "TestModels"]),
    .testTarget(name: "SteppingTests", dependencies: ["CPUBackend", "Stepping", "Traces", "Training", "Conformance", "TestModels"]),
    .testTarget(name: "ExplainingTests", dependencies: ["CPUBackend", "Explaining", "Stepping", "Traces", "TestModels"]),
    .testTarget(name: "CasesTests", dependencies: ["CPUBackend", "Checkpoints", "Decoders", "Layers", "Traces", "Conformance"]),
    .testTarget(name: "ComparisonTests", dependencies: ["CPUBackend", "Checkpoints", "Conformance", "Comparison", "Decoders"]),
    .testTarget(name: "GenerationTests", dependencies: ["CPUBackend", "Generation", "Conformance", "TestModels"]),
    .testTarget(name: "CollectivesTests", dependencies: ["Collectives"]),
    .testTarget(name: "EvaluationTests", dependencies: ["CPUBackend", "Evaluation", "TestModels"]),
    .testTarget(name: "TrainingTests", dependencies: ["MixLoRA", "CPUBackend", "Samples", "Training", "Conformance", "TestModels"]),
  ],
  swiftLanguageModes: [.v6],
  cLanguageStandard: .c2x,
  cxxLanguageStandard: .cxx17
)

#if compiler(>=6.3)  // which has @c
  // For C and what speaks it, such as Notebooks/mixlora.py.
  package.products.append(.library(name: "CMixLoRA", type: .dynamic, targets: ["CInterface", "SmallLinks", "LibraryLinks"]))
  // It stands alone as the program does (--static-swift-stdlib does that for programs only), and shows nothing but its functions.
  let exports = "--version-script=\(Context.packageDirectory)/Sources/CMixLoRA/exports.map"
  package.targets += [
    .systemLibrary(name: "CMixLoRA"),
    .target(name: "CInterface", dependencies: ["CMixLoRA", "CEmbedded", "MixLoRA", "Platform"]),
    links("Library", [.unsafeFlags(["-static-stdlib", "-Xlinker", exports], .when(platforms: [.linux], configuration: .release))]),
    .testTarget(name: "CInterfaceTests", dependencies: ["CMixLoRA", "CInterface", "MixLoRA", "TestModels"]),
  ]
#endif

/// `MIXLORA_ONLY=CUDABackendTests`: these targets and what they need, for whoever builds them again and again. A package has one bundle
/// of all its tests, which is linked after every change; tests of the command line find the program beside it.
if let names = Context.environment["MIXLORA_ONLY"] {
  var wanted: Set<String> = []
  var open = names.split(separator: ",").map(String.init)
  while let name = open.popLast() {
    guard wanted.insert(name).inserted else { continue }
    guard let target = package.targets.first(where: { $0.name == name }) else { fatalError("MIXLORA_ONLY: there is no target \(name)") }
    for case .byNameItem(let name, _) in target.dependencies { open.append(name) }
  }
  package.targets.removeAll { !wanted.contains($0.name) }
  package.products = wanted.contains("MixLoRACommand") ? [.executable(name: "mixlora", targets: ["MixLoRACommand"])] : []
}

// A section for each function, so that the linker can leave it out, and both cores; what computes little is made small.
for target in package.targets where isRoot && target.type != .system && target.type != .test {
  let computesLittle = [
    "CInterface", "CUDABackend", "Collectives", "Comparison", "Conformance", "Decoders", "Evaluation", "Explaining", "Generation", "Layers",
    "MixLoRACommand", "Samples", "Stepping", "Templates", "Traces", "Training",
  ].contains(target.name)
  target.swiftSettings =
    (target.swiftSettings ?? []) + [
      .unsafeFlags(
        ["-Xfrontend", "-function-sections", "-num-threads", "2"] + (computesLittle ? ["-Osize"] : []), .when(configuration: .release))
    ]
}
