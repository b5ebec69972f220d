import ArgumentParser
import Checkpoints
import Platform
import Tensors

/// Times single operations.
struct BenchOperationsCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "ops",
    abstract: "Time single operations at a model's shapes.",
    discussion: """
      A line an operation: the median of --repeats after one that is not counted, the bytes that it must read and write at least, or \
      its flops, a second.

      Examples:
        mixlora bench ops
        mixlora bench ops --channels 4096 --hidden 11008 --tokens 2048 --backend cuda --json
      """)

  @OptionGroup var block: BlockOptions
  @Option(help: "Tokens of a sequence.")
  var length = 256
  @Option(help: "Rank r of a branch.")
  var rank = 16
  @Flag(help: "Print one JSON object a line.")
  var json = false
  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  func validate() throws {
    for (name, value) in [("--length", length), ("--rank", rank)] {
      guard (1...1_000_000).contains(value) else { throw ValidationError("\(name) is \(value), expected 1 to 1000000.") }
    }
  }

  func run() throws {
    let (n, c, f) = (block.tokens, block.channels, block.hidden)
    try requireMemory(
      4 * Double(c * f + 8 * n * (c + f)), for: "the rows", input: "--tokens, --hidden")
    try compute()
  }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    if !json { print(backend.machineName) }
    for timed in operations(on: backend) {
      var seconds: [Double] = []
      for index in 0...block.repeats {
        try backend.synchronize()
        let start = POSIX.seconds
        timed.body()
        try backend.synchronize()
        if index > 0 { seconds.append(POSIX.seconds - start) }
      }
      let time = median(seconds)
      let (rate, unit) = timed.flops > 0 ? (timed.flops / time * 1e-9, "GFLOP/s") : (timed.bytes / time * 1e-9, "GB/s")
      if json {
        let line: JSON = [
          "operation": JSON(timed.name), "seconds": JSON(time), timed.flops > 0 ? "gflops" : "gigabytes_per_second": JSON(rate),
        ]
        print(line.serialized())
      } else {
        print(pad(timed.name, 34) + padLeft(fixed(1e6 * time, 1), 12) + " µs" + padLeft(fixed(rate, 1), 10) + " " + unit)
      }
    }
  }

  /// An operation at its shapes, with the least that it moves, in bytes, or its flops.
  private struct Timed {
    let name: String
    var bytes = 0.0
    var flops = 0.0
    let body: () -> Void
  }

  private func operations<B: ProfilingBackend>(on b: B) -> [Timed] {
    let (n, c, f, r, size) = (block.tokens, block.channels, block.hidden, rank, Double(MemoryLayout<B.Scalar>.size))
    func random(_ rows: Int, _ columns: Int, _ seed: UInt64) -> Tensor<B> {
      b.random(Shape(rows, columns), .normal(deviation: 1), RandomKey(seed: seed))
    }
    let (x, h, h2) = (random(n, c, 1), random(n, f, 2), random(n, f, 3))
    let (w, a) = (random(f, c, 4), random(r, c, 5))
    let weight = b.random(Shape(c), .normal(deviation: 1), RandomKey(seed: 6))
    let numbers = b.upload((0..<n).map { Int32($0 % length) })
    let identity = RowIdentity<B>(samples: numbers, positions: numbers, step: 1)
    let plan = SequencePlan(offsets: Array(stride(from: 0, to: n, by: length)) + [n], on: b)
    let form = AttentionForm(heads: c / 64, keyValueHeads: c / 64, headWidth: 64, scale: 0.125)
    let (output, logSumExp) = b.attention(x, x, x, plan, form)
    let pairs = plan.offsets.indices.dropLast().reduce(0.0) { $0 + Double(plan.queries($1).count * (plan.queries($1).count + 1)) / 2 }
    let (product, rows) = (2 * Double(n) * Double(c) * Double(f), Double(n) * size)
    var (y, branch) = (b.empty(Shape(n, f)), b.empty(Shape(n, r)))
    return [
      Timed(name: "copy (\(n),\(f))", bytes: 2 * rows * Double(f)) { _ = b.copy(h) },
      Timed(name: "gemm x Wᵀ (\(n),\(c)) (\(c),\(f))", flops: product) { b.gemm(1, x.operand, w.T, 0, into: &y, rows: nil) },
      Timed(name: "gemm x Aᵀ (\(n),\(c)) (\(c),\(r))", flops: 2 * Double(n * c * r)) {
        b.gemm(1, x.operand, a.T, 0, into: &branch, rows: nil)
      },
      Timed(name: "rmsNorm (\(n),\(c))", bytes: 2 * rows * Double(c)) { _ = b.rmsNorm(x, weight, offset: 0, epsilon: 1e-5) },
      Timed(name: "gated (\(n),\(f))", bytes: 3 * rows * Double(f)) { _ = b.gated(.silu, h, h2) },
      Timed(name: "gatedBackward (\(n),\(f))", bytes: 5 * rows * Double(f)) { _ = b.gatedBackward(.silu, h, h, h2) },
      Timed(name: "dropout (\(n),\(f))", bytes: 2 * rows * Double(f)) { _ = b.dropout(h, 0.05, RandomKey(seed: 7), identity) },
      Timed(name: "attention (\(n),\(c)), \(length) a sequence", flops: 4 * pairs * Double(c)) { _ = b.attention(x, x, x, plan, form) },
      Timed(name: "attentionBackward", flops: 10 * pairs * Double(c)) {
        _ = b.attentionBackward(x, x, x, x, output: output, logSumExp: logSumExp, plan, form)
      },
    ]
  }
}
