import Checkpoints
import Decoders
import Layers
import Platform
import Tensors

/// Times a model's first feed-forward on random rows, and the frozen products in it.
struct FeedForwardBench<B: ProfilingBackend> {
  private let layer: FeedForward<B>
  private let batch: PackedBatch<B>
  private let backend: B
  private let seed: UInt64
  private let parameters: [Parameter<B>]

  /// What was measured, in seconds.
  struct Result {
    let machine: String
    let shape: (tokens: Int, channels: Int, hidden: Int)
    let forward: Spread
    let backward: Spread
    let floor: Double
    let operations: Int
    /// Of more repetitions.
    let profile: OperationProfile?
  }

  /// - Precondition: the model's blocks are sequential.
  init(_ decoder: Decoder<B>, rows: Int, seed: UInt64, on backend: B) throws {
    guard let block = decoder.blocks.first as? SequentialBlock<B> else {
      throw UsageError("bench ffn times the feed-forward of sequential blocks; this model has others.")
    }
    layer = block.feedForward.layer
    batch = PackedBatch(
      [PackedSequence(ids: [Int32](repeating: 0, count: rows), labels: [Int32?](repeating: nil, count: rows))], on: backend)
    parameters = decoder.parameters
    self.backend = backend
    self.seed = seed
  }

  func measure(repeats: Int, _ options: ProfileOptions) throws -> Result {
    let (rows, channels) = (batch.tokens, layer.frozen.down.weight.shape.rows)
    let key = RandomKey(seed: seed)
    let x = backend.random(Shape(rows, channels), .normal(deviation: 1), key.derived("x", "bench"))
    let dy = backend.random(Shape(rows, channels), .normal(deviation: 1), key.derived("dy", "bench"))
    func pass(_ step: Int) throws -> (start: Double, middle: Double, end: Double) {
      let run = Run(backend, training: TrainingPass(key: key, step: step))
      try backend.synchronize()
      let start = POSIX.seconds
      let (_, cache) = layer.forward(x, batch, run)
      try backend.synchronize()
      let middle = POSIX.seconds
      _ = layer.backward(dy, x, cache, batch, run)
      try backend.synchronize()
      let end = POSIX.seconds
      try run.finish()
      return (start, middle, end)
    }
    _ = try pass(1)  // fills the pool
    let before = backend.counters
    let times = try (0..<repeats).map { try pass($0 + 2) }
    let operations = (backend.counters - before).operations / repeats
    var profile: OperationProfile?
    if options.isAsked {
      var last = times[0]
      let measured = try OperationProfile(of: repeats, on: backend) { last = try pass(repeats + 2 + $0) }
      if let path = options.profile {
        var trace = ChromeTrace()
        trace.add("block", "step", last.start, last.end)
        trace.add("forward", "phase", last.start, last.middle)
        trace.add("backward", "phase", last.middle, last.end)
        trace.add(measured)
        try trace.write(to: path)
      }
      if options.phases { profile = measured }
    }
    let floors = try backend.withEachWayOfProducts { Spread(try (0..<4).map { _ in try frozenProducts(x, dy) }.dropFirst()).median }
    return Result(
      machine: backend.machineName, shape: (rows, channels, layer.frozen.down.weight.shape.columns),
      forward: Spread(times.map { $0.middle - $0.start }),
      backward: Spread(times.map { $0.end - $0.middle }), floor: floors.min() ?? .infinity, operations: operations, profile: profile)
  }

  /// Seconds of the three frozen products, forward and the gradient of their inputs.
  private func frozenProducts(_ x: Tensor<B>, _ dy: Tensor<B>) throws -> Double {
    let (gate, up, down) = (layer.frozen.gate.weight, layer.frozen.up.weight, layer.frozen.down.weight)
    try backend.synchronize()
    let start = POSIX.seconds
    let base1 = backend.matmul(x, gate.T)
    _ = backend.matmul(x, up.T)
    _ = backend.matmul(base1, down.T)
    let q = backend.matmul(dy, down)
    var dx = backend.matmul(q, gate)
    backend.addProduct(1, q, up, into: &dx)
    try backend.synchronize()
    return POSIX.seconds - start
  }
}

extension FeedForwardBench.Result {
  private var ratio: Double { floor / (forward.median + backward.median) }
  private var flops: Double { 12 * Double(shape.tokens) * Double(shape.channels) * Double(shape.hidden) }

  func json() -> String {
    var object = JSON.Object()
    object["machine"] = JSON(machine)
    object["tokens"] = JSON(shape.tokens)
    object["channels"] = JSON(shape.channels)
    object["hidden"] = JSON(shape.hidden)
    object.add("forward_seconds", forward)
    object.add("backward_seconds", backward)
    object["floor_seconds"] = JSON(floor)
    object["floor_gflops"] = JSON(flops / floor * 1e-9)
    object["floor_ratio"] = JSON(ratio)
    object["operations"] = JSON(operations)
    if let profile { object["operation_seconds"] = profile.json }
    return JSON.object(object).serialized()
  }

  func text() -> String {
    let lines = """
      \(machine)
      forward   \(fixed(1000 * forward.median, 2)) ms (\(forward.range(2, times: 1000)))
      backward  \(fixed(1000 * backward.median, 2)) ms (\(backward.range(2, times: 1000)))
      floor     \(fixed(1000 * floor, 2)) ms frozen products at \(fixed(flops / floor * 1e-9, 0)) GFLOP/s
      ratio     \(fixed(ratio, 3)) of the floor, \(operations) operations
      """
    return ([lines] + (profile?.lines ?? [])).joined(separator: "\n")
  }
}
