import CUDAEmulator
import Conformance
import Tensors
import Testing

@testable import CUDABackend

/// What the experts' hidden rows cost in one pass, beside being right.
@Suite struct FusedTests {
  /// Sizes of a stage: tokens, columns, experts of which each token has two, rank.
  struct Size: CustomStringConvertible {
    let n, f, e, r: Int
    var description: String { "N \(n) F \(f) E \(e) r \(r)" }
  }

  /// Words of device memory that a stage moves forward and backward, in N·F: with every load and store, and with each place once a
  /// launch, which is what a cache moves.
  static func words(_ size: Size) throws -> (all: Double, once: Double) {
    let opened = emulator_open(emulator_options(seed: 1, is_watched: true, is_idle: false, has_products: false))
    let backend = try CUDAFloat(CUDADevice(opened), isPoisoned: true)
    let (n, f, e, r) = (size.n, size.f, size.e, size.r)
    let key = RandomKey(seed: 3)
    func random(_ rows: Int, _ columns: Int, _ name: String) -> Tensor<CUDAFloat> {
      backend.random(Shape(rows, columns), .uniform(bound: 1), key.derived(name, "test"))
    }
    func branch(_ name: String) -> (t: Tensor<CUDAFloat>, b: Parameter<CUDAFloat>, scale: Double) {
      (random(2 * n, r, name + ".t"), Parameter("B", random(f, e * r, name + ".b"), on: backend), 0.5)
    }
    let p = backend.softmax(random(n, e, "logits"))
    let routing = backend.route(p, choice: backend.choose(p, .topK(2)), .topK(2))
    let hidden = ExpertHidden(
      activation: .silu, a: ExpertSum(base: random(n, f, "a"), branch: branch("a")),
      c: ExpertSum(base: random(n, f, "c"), branch: branch("c")),
      a2: Parameter("A2", random(e * r, f, "a2"), on: backend), mask: nil)
    let (q, z) = (random(n, f, "q"), random(2 * n, r, "z"))
    for parameter in [hidden.a.branch?.b, hidden.c.branch?.b, hidden.a2] { backend.scale(0, &parameter!.gradient) }
    try backend.synchronize()
    let before = emulator_counts(opened.device!)
    #expect(backend.expertHidden(hidden, routing) != nil && backend.expertHiddenBackward(q, z: z, hidden, routing) != nil)
    try backend.synchronize()
    let after = emulator_counts(opened.device!)
    func words(_ bytes: UInt64) -> Double { Double(bytes) / 4 / Double(n * f) }
    return (
      words(after.bytes_read - before.bytes_read + after.bytes_written - before.bytes_written),
      words(after.bytes_touched - before.bytes_touched)
    )
  }

  /// As it is where a device has no room for more blocks: each walks several tiles of columns and, backward, of tokens; one block all of
  /// them, four share them.
  @Test(arguments: [1, 4]) func blocksThatWalkSeveralTilesMeetEveryBound(_ blocks: Int) throws {
    func check<B: CUDABackend>(_ backend: B) {
      backend.core.expertBlocks = blocks
      let report = ConformanceReport(backend, operations: ["expertHidden", "expertHiddenBackward"])
      #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
    }
    check(try CUDAFloat(EmulatedDevice.open(seed: 2), isPoisoned: true))
    check(try CUDADouble(EmulatedDevice.open(seed: 2), isPoisoned: true))
  }

  /// Bases and q are read, v, da and dc written, once by a kernel: 3 words forward, 5 backward. All else grows with the rank. Per E r / N:
  /// factors are read by each pass, their gradients joined from one sum for every 64 tokens. Per r / F: t and z, and the parts of sums
  /// over F, one for every 64 columns.
  @Test(arguments: [Size(n: 256, f: 128, e: 4, r: 2), Size(n: 192, f: 128, e: 8, r: 16)])
  func aStageMovesEightWordsAndWhatRanksAdd(_ size: Size) throws {
    let (n, f, e, r) = (Double(size.n), Double(size.f), Double(size.e), Double(size.r))
    let (groups, parts) = ((n / 64).rounded(.up), (f / 64).rounded(.up))
    let expected = 8 + (6 + 6 * (groups + 1)) * e * r / n + 2 / f * (5 * r + (r + 2 * r + 1) * (2 * parts + 1))
    let words = try Self.words(size)
    #expect(words.once > 8 && words.once < 1.05 * expected, "\(size): \(words), expected \(expected)")
    if r == 2 { #expect(words.once <= 10) }  // 9.83 by the formula
  }
}
