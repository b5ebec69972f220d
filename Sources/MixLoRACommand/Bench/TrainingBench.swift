import Checkpoints
import Decoders
import Layers
import Platform
import Tensors
import Training

/// Times training steps as a run makes them, and their floor.
struct TrainingBench<B: ProfilingBackend> {
  private let decoder: Decoder<B>
  private let batch: PackedBatch<B>
  private let training: TrainingStep<B>
  private let backend: B

  init(_ decoder: Decoder<B>, _ batch: PackedBatch<B>, seed: UInt64, recomputes: Recomputation, on backend: B) {
    self.decoder = decoder
    self.batch = batch
    self.backend = backend
    let count = max(1, decoder.adapters.count)
    training = TrainingStep(
      decoder, keys: (0..<count).map { RandomKey(seed: seed).derived($0) }, clips: Array(repeating: 1, count: count),
      recomputes: recomputes,
      on: backend)
  }

  func measure(steps: Int, profiled: Bool) throws -> BenchResult {
    var optimizers: [(any Optimizer<B>)?] = decoder.adapters.map { AdamW($0.trained.parameters, learningRate: 2e-4, on: backend) }
    var times: [BenchStep] = []
    var counters = Counters()
    for index in 0...steps {  // the first fills the pool and is not counted
      let before = backend.counters
      let time = try step(index + 1, &optimizers)
      counters = backend.counters - before
      if index > 0 { times.append(time) }
    }
    let profile = try profiled ? OperationProfile(of: steps, on: backend) { _ = try step(steps + 1 + $0, &optimizers) } : nil
    let peak = backend.peakBytes
    let floors = try backend.withEachWayOfProducts { median(try (0..<4).map { _ in try frozenProducts() }.dropFirst()) }
    return BenchResult(
      machine: backend.machineName, tokens: batch.tokens, threads: backend.threadCount, steps: times,
      floorSeconds: floors.min() ?? .infinity, floorFlops: flops, peakBytes: peak, counters: counters, profile: profile)
  }

  private func step(_ number: Int, _ optimizers: inout [(any Optimizer<B>)?]) throws -> BenchStep {
    var last = POSIX.seconds
    var seconds: [TrainingStep<B>.Phase: Double] = [:]
    let results = try training.run([batch], number: number, &optimizers) { phase in
      try? backend.synchronize()  // what failed, the download below throws
      let now = POSIX.seconds
      (seconds[phase], last) = (now - last, now)
    }
    let losses = try backend.download(results.compactMap { $0?.loss }).joined()
    guard !losses.isEmpty, losses.allSatisfy(\.isFinite) else { throw NonFiniteValue("the loss", at: "step \(number)") }
    return BenchStep(forward: seconds[.forward] ?? .nan, backward: seconds[.backward] ?? .nan, optimizer: seconds[.update] ?? .nan)
  }

  /// Seconds of the step's frozen products alone, forward and the gradient of their inputs.
  private func frozenProducts() throws -> Double {
    var seconds = 0.0
    for (weight, rows) in decoder.blockMatrices.map({ ($0, batch.tokens) }) + [(decoder.head.weight, labels)] {
      let x = backend.zeros(Shape(rows, weight.shape.columns))
      let dy = backend.zeros(Shape(rows, weight.shape.rows))
      var (y, dx) = (backend.empty(dy.shape), backend.empty(x.shape))
      try backend.synchronize()
      let start = POSIX.seconds
      backend.gemm(1, x.operand, weight.T, 0, into: &y, rows: nil)
      backend.gemm(1, dy.operand, weight.operand, 0, into: &dx, rows: nil)
      try backend.synchronize()
      seconds += POSIX.seconds - start
    }
    return seconds
  }

  private var flops: Double {
    4
      * (decoder.blockMatrices.reduce(0.0) { $0 + Double($1.shape.count * batch.tokens) }
        + Double(decoder.head.weight.shape.count * labels))
  }

  private var labels: Int { decoder.adapters.indices.reduce(0) { $0 + batch.labels(of: $1).count } }
}

/// The middle one, or the mean of the two in the middle; NaN of none.
func median(_ values: some Sequence<Double>) -> Double {
  let sorted = values.sorted()
  guard !sorted.isEmpty else { return .nan }
  return sorted.count % 2 == 1 ? sorted[sorted.count / 2] : (sorted[sorted.count / 2 - 1] + sorted[sorted.count / 2]) / 2
}

/// Seconds of one step's phases.
struct BenchStep {
  var forward: Double
  var backward: Double
  var optimizer: Double
  var total: Double { forward + backward + optimizer }
}

/// What was measured.
struct BenchResult {
  let machine: String
  let tokens: Int
  let threads: Int
  let steps: [BenchStep]
  let floorSeconds: Double
  let floorFlops: Double
  let peakBytes: Int
  let counters: Counters
  /// Of more steps.
  let profile: OperationProfile?
}

extension BenchResult {
  private var stepSeconds: Double { median(steps.map(\.total)) }
  private var tokensPerSecond: Double { Double(tokens) / stepSeconds }
  private var floorTokensPerSecond: Double { Double(tokens) / floorSeconds }
  /// The floor's share of forward and backward; the optimizer is not in it.
  private var floorRatio: Double { floorSeconds / median(steps.map { $0.forward + $0.backward }) }

  func json() -> String {
    var object = JSON.Object()
    object["tokens_per_second"] = JSON(tokensPerSecond)
    object["step_seconds_median"] = JSON(stepSeconds)
    object["peak_resident_bytes"] = JSON(peakBytes)
    object["floor_tokens_per_second"] = JSON(floorTokensPerSecond)
    object["floor_gflops"] = JSON(floorFlops / floorSeconds * 1e-9)
    object["floor_ratio"] = JSON(floorRatio)
    object["threads"] = JSON(threads)
    object["pool_misses_per_step"] = JSON(counters.poolMisses)
    object["shared_copies_per_step"] = JSON(counters.sharedCopies)
    if let profile {
      object["forward_seconds"] = JSON(median(steps.map(\.forward)))
      object["backward_seconds"] = JSON(median(steps.map(\.backward)))
      object["optimizer_seconds"] = JSON(median(steps.map(\.optimizer)))
      object["operation_seconds"] = profile.json
    }
    return JSON.object(object).serialized()
  }

  func text() -> String {
    var lines = [
      machine,
      "step      \(fixed(stepSeconds, 3)) s median of \(steps.count)   \(fixed(tokensPerSecond, 1)) tokens/s",
      "floor     \(fixed(floorSeconds, 3)) s frozen products   \(fixed(floorTokensPerSecond, 1)) tokens/s at \(fixed(floorFlops / floorSeconds * 1e-9, 0)) GFLOP/s",
      "ratio     \(fixed(floorRatio, 3)) of the floor, forward + backward",
      "memory    \(fixed(Double(peakBytes) / 1_073_741_824, 2)) GiB peak   \(counters.poolMisses) pool misses, \(counters.sharedCopies) shared copies a step",
    ]
    if let profile {
      lines.append("forward   \(fixed(median(steps.map(\.forward)), 3)) s, to the rows that the head reads")
      lines.append("backward  \(fixed(median(steps.map(\.backward)), 3)) s, the head's losses included")
      lines.append("optimizer \(fixed(median(steps.map(\.optimizer)), 3)) s, with norm and clipping")
      lines += profile.lines
    }
    return lines.joined(separator: "\n")
  }
}
