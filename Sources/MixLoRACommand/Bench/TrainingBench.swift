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

  func measure(steps: Int, _ options: ProfileOptions) throws -> BenchResult {
    let trainable = decoder.parameters.reduce(0) { $0 + $1.value.shape.count }
    let base = backend.peakBytes - trainable * MemoryLayout<B.Scalar>.size
    var optimizers: [(any Optimizer<B>)?] = decoder.adapters.map { AdamW($0.trained.parameters, learningRate: 2e-4, on: backend) }
    var times: [BenchStep] = []
    var counters = Counters()
    for index in 0...steps {  // the first fills the pool and is not counted
      let before = backend.counters
      times.append(try step(index + 1, &optimizers))
      counters = backend.counters - before
    }
    var profile: OperationProfile?
    if options.isAsked {
      let marks = options.profile.map { _ in LayerMarks(decoder) }
      var last = times[0]
      let measured = try OperationProfile(of: steps, on: backend) { last = try step(steps + 2 + $0, &optimizers, marks) }
      if let path = options.profile { try trace(last, measured, marks).write(to: path) }
      if options.phases { profile = measured }
    }
    let peak = backend.peakBytes
    let floors = try backend.withEachWayOfProducts { Spread(try (0..<4).map { _ in try frozenProducts() }.dropFirst()).median }
    return BenchResult(
      machine: backend.machineName, tokens: batch.tokens, threads: backend.threadCount, trainable: trainable, first: times[0],
      steps: Array(times.dropFirst()), floorSeconds: floors.min() ?? .infinity, floorFlops: flops, baseBytes: base, peakBytes: peak,
      counters: counters, profile: profile)
  }

  private func step(_ number: Int, _ optimizers: inout [(any Optimizer<B>)?], _ marks: LayerMarks<B>? = nil) throws -> BenchStep {
    let start = POSIX.seconds
    var ends: [TrainingStep<B>.Phase: Double] = [:]
    let results = try training.run([batch], number: number, &optimizers, hooks: marks.map { [$0] } ?? []) { phase in
      try? backend.synchronize()  // what failed, the download below throws
      ends[phase] = POSIX.seconds
    }
    let losses = try backend.download(results.compactMap { $0?.loss }).joined().map { Double($0) }
    guard !losses.isEmpty, losses.allSatisfy(\.isFinite) else { throw NonFiniteValue("the loss", at: "step \(number)") }
    return BenchStep(
      start: start, forwardEnd: ends[.forward] ?? .nan, backwardEnd: ends[.backward] ?? .nan, updateEnd: ends[.update] ?? .nan,
      end: POSIX.seconds, loss: losses.reduce(0, +) / Double(losses.count))
  }

  private func trace(_ step: BenchStep, _ profile: OperationProfile, _ marks: LayerMarks<B>?) -> ChromeTrace {
    var trace = ChromeTrace()
    trace.add("step", "step", step.start, step.end)
    trace.add("forward", "phase", step.start, step.forwardEnd)
    trace.add("backward", "phase", step.forwardEnd, step.backwardEnd)
    trace.add("optimizer", "phase", step.backwardEnd, step.updateEnd)
    trace.add(marks?.spans(step.start, step.forwardEnd, step.backwardEnd) ?? [])
    trace.add(profile)
    return trace
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

/// When one step's phases ended, in seconds of the clock, and the mean loss of the adapters before it.
struct BenchStep {
  let start, forwardEnd, backwardEnd, updateEnd, end: Double
  let loss: Double
  var forward: Double { forwardEnd - start }
  var backward: Double { backwardEnd - forwardEnd }
  var optimizer: Double { updateEnd - backwardEnd }
  var total: Double { updateEnd - start }
}

/// What was measured.
struct BenchResult {
  let machine: String
  let tokens: Int
  let threads: Int
  let trainable: Int
  /// The step that is not counted.
  let first: BenchStep
  let steps: [BenchStep]
  let floorSeconds: Double
  let floorFlops: Double
  /// What was in memory before the first step, but for the adapters' values.
  let baseBytes: Int
  let peakBytes: Int
  let counters: Counters
  /// Of more steps.
  let profile: OperationProfile?
}

extension BenchResult {
  private var stepSeconds: Spread { Spread(steps.map(\.total)) }
  private var tokensPerSecond: Double { Double(tokens) / stepSeconds.median }
  private var floorTokensPerSecond: Double { Double(tokens) / floorSeconds }
  /// The floor's share of forward and backward; the optimizer is not in it.
  private var floorRatio: Double { floorSeconds / Spread(steps.map { $0.forward + $0.backward }).median }

  func json() -> String {
    var object = JSON.Object()
    object["tokens_per_second"] = JSON(tokensPerSecond)
    object["step_seconds_median"] = JSON(stepSeconds.median)
    object["step_seconds_least"] = JSON(stepSeconds.least)
    object["step_seconds_most"] = JSON(stepSeconds.most)
    object["peak_resident_bytes"] = JSON(peakBytes)
    object["base_bytes"] = JSON(baseBytes)
    object["trainable_parameters"] = JSON(trainable)
    object["loss_first"] = JSON(first.loss)
    object["loss_last"] = JSON(steps.last?.loss ?? .nan)
    object["floor_tokens_per_second"] = JSON(floorTokensPerSecond)
    object["floor_gflops"] = JSON(floorFlops / floorSeconds * 1e-9)
    object["floor_ratio"] = JSON(floorRatio)
    object["threads"] = JSON(threads)
    object["pool_misses_per_step"] = JSON(counters.poolMisses)
    object["shared_copies_per_step"] = JSON(counters.sharedCopies)
    if let profile {
      object["forward_seconds"] = JSON(Spread(steps.map(\.forward)).median)
      object["backward_seconds"] = JSON(Spread(steps.map(\.backward)).median)
      object["optimizer_seconds"] = JSON(Spread(steps.map(\.optimizer)).median)
      object["operation_seconds"] = profile.json
    }
    return JSON.object(object).serialized()
  }

  func text() -> String {
    var lines = [
      machine,
      "step      \(fixed(stepSeconds.median, 3)) s median of \(steps.count) (\(stepSeconds.range(3)))   \(fixed(tokensPerSecond, 1)) tokens/s",
      "floor     \(fixed(floorSeconds, 3)) s frozen products   \(fixed(floorTokensPerSecond, 1)) tokens/s at \(fixed(floorFlops / floorSeconds * 1e-9, 0)) GFLOP/s",
      "ratio     \(fixed(floorRatio, 3)) of the floor, forward + backward",
      "memory    \(fixed(Double(peakBytes) / 1_073_741_824, 2)) GiB peak   \(counters.poolMisses) pool misses, \(counters.sharedCopies) shared copies a step",
    ]
    if let profile {
      lines.append("forward   \(fixed(Spread(steps.map(\.forward)).median, 3)) s, to the rows that the head reads")
      lines.append("backward  \(fixed(Spread(steps.map(\.backward)).median, 3)) s, the head's losses included")
      lines.append("optimizer \(fixed(Spread(steps.map(\.optimizer)).median, 3)) s, with norm and clipping")
      lines += profile.lines
    }
    return lines.joined(separator: "\n")
  }
}
