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
      A line for each operation that steps and generation spend their time in, N tokens, C channels, F hidden width, r rank, with 8 \
      experts, M rows in their order, 2 for each token: the median of --repeats after one that is not counted, the least and the most, \
      its flops a second or the bytes a second that it must read and write at least, and the share of the most that this machine reached \
      in the first product, or in the first copy. (A row times a matrix in q4_0 reads its bytes as they are kept.)

      Examples: the shapes of SmolLM2-135M, TinyLlama and Llama-7B
        mixlora bench ops --channels 576 --hidden 1536
        mixlora bench ops
        mixlora bench ops --channels 4096 --hidden 11008 --tokens 2048 --backend cuda --json
      """)

  @OptionGroup var block: BlockOptions
  @Option(help: "Tokens of a sequence.")
  var length = 256
  @Option(help: "Rank r of a branch.")
  var rank = 16
  @Option(help: ProfileOptions.profileHelp)
  var profile: String?
  @Flag(help: "Print one JSON object a line.")
  var json = false
  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  func validate() throws {
    try requireRange(["--length": length, "--rank": rank])
  }

  func run() throws {
    let (n, c, f) = (block.tokens, block.channels, block.hidden)
    try requireMemory(
      4 * Double(2 * c * f + 16 * n * (c + f)), for: "the rows", input: "--tokens, --hidden")
    try compute()
  }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    if !json { print("\(backend.machineName)\n" + pad("", 34) + "median µs         least to most         reached  of best") }
    var best: (flops: Double, bytes: Double) = (0, 0)  // that the first product and the first copy reached
    var trace = ChromeTrace()
    for timed in HotOperations(block, length: length, rank: rank, on: backend).all {
      func time() throws -> (start: Double, end: Double) {
        try backend.synchronize()
        let start = POSIX.seconds
        timed.body()
        try backend.synchronize()
        return (start, POSIX.seconds)
      }
      let seconds = Spread(try (0...block.repeats).map { _ in try time() }.dropFirst().map { $0.end - $0.start })
      if profile != nil {
        var last = (start: 0.0, end: 0.0)
        let measured = try OperationProfile(of: block.repeats, on: backend) { _ in last = try time() }
        trace.add(timed.name, "step", last.start, last.end)
        trace.add(measured)
      }
      let (key, unit, work): (String, String, Double)
      let ceiling: Double
      switch timed.work {
      case .flops(let flops):
        (key, unit, work) = ("gflops", "GFLOP/s", flops * 1e-9)
        if best.flops == 0 { best.flops = work / seconds.least }
        ceiling = best.flops
      case .bytes(let bytes):
        (key, unit, work) = ("gigabytes_per_second", "GB/s", bytes * 1e-9)
        if best.bytes == 0 { best.bytes = work / seconds.least }
        ceiling = best.bytes
      }
      let rate = work / seconds.median
      let share = rate / ceiling
      if json {
        var line = JSON.Object()
        line["operation"] = JSON(timed.name)
        line.add("seconds", seconds)
        line[key] = JSON(rate)
        line["share"] = JSON(share)
        print(JSON.object(line).serialized())
      } else {
        print(
          pad(timed.name, 34) + padLeft(fixed(1e6 * seconds.median, 1), 9) + padLeft(seconds.range(1, times: 1e6), 22)
            + padLeft(fixed(rate, 1), 9) + " " + pad(unit, 7) + padLeft(fixed(share, 2), 6))
      }
    }
    if let profile { try trace.write(to: profile) }
  }
}
