import CPUBackend
import CUDABackend
import Checkpoints
import Conformance
import Decoders
import Layers
import Platform
import Tensors

extension Doctor {
  /// What is computed, against what must come out.
  var numberChecks: [DoctorCheck] {
    [
      DoctorCheck("operations in float64") { operations(CPUDouble(threads: threads), seconds: Self.secondsOfOperations) },
      DoctorCheck("operations in float32") { operations(CPUFloat(threads: threads), seconds: Self.secondsOfOperations) },
      DoctorCheck("float32 against float64") {
        Self.result(ConformanceReport(CPUFloat(threads: threads), against: CPUDouble(threads: threads)), "programs agree to rounding")
      },
      DoctorCheck("gradient of a model") { try gradient(on: CPUDouble(threads: threads)) },
      DoctorCheck("LAPACK", singularValues),
    ]
  }

  /// The same on a GPU, every case of it: there is no other place where its kernels are tried on its own arithmetic.
  var gpuChecks: [DoctorCheck] {
    [
      DoctorCheck("GPU") { .ok(try GPU.open().description) },
      DoctorCheck("operations in float64") { operations(try CUDADouble(GPU.open()), seconds: .infinity) },
      DoctorCheck("operations in float32") { operations(try CUDAFloat(GPU.open()), seconds: .infinity) },
      DoctorCheck("float32 against float64") {
        Self.result(
          ConformanceReport(try CUDAFloat(GPU.open()), against: CPUDouble(threads: threads)), "programs agree with the CPU's to rounding")
      },
      DoctorCheck("gradient of a model") { try gradient(on: CUDADouble(GPU.open())) },
    ]
  }

  /// Every operation's cases in turn, one of each operation after the other, until the time is over.
  private func operations<B: Backend>(_ backend: B, seconds: Double) -> DoctorCheck.Result {
    let cases = OperationCase<B>.all
    // Gradient checks of single operations are about the definitions, not about this machine.
    var queues = OperationCase<B>.operations.filter { $0 != "gradient" }.map { name in cases.filter { $0.operation == name }[...] }
    var count = queues.reduce(0) { $0 + $1.count }
    var entries: [ConformanceReport.Entry] = []
    var tried: Set<String> = []
    let end = POSIX.seconds + seconds
    // The first case of each always runs: an operation that nobody tried is not one that works.
    while entries.isEmpty || POSIX.seconds < end, queues.contains(where: { !$0.isEmpty }) {
      let isFirst = entries.isEmpty
      for index in queues.indices where isFirst || POSIX.seconds < end {
        guard let next = queues[index].popFirst() else { continue }
        let outcome = next.run(backend)
        if case .notRun = outcome, OperationCase<B>.optional.contains(next.operation) {  // the backend does without it
          count -= 1 + queues[index].count
          queues[index] = []
          continue
        }
        tried.insert(next.operation)
        entries.append(.init(name: next.name, outcome: outcome))
      }
    }
    let left = count - entries.count
    return Self.result(
      ConformanceReport(entries), "cases of \(tried.count) operations" + (left > 0 ? "; \(left) more did not fit into the time" : ""))
  }

  /// Twice this, a second or two for the rest, and a slow case at the end stay below 20 s.
  private static var secondsOfOperations: Double { 5 }

  private static func result(_ report: ConformanceReport, _ what: String) -> DoctorCheck.Result {
    guard report.isPassed else { return .fail(report.description) }
    guard report.notRun.isEmpty else { return .notRun("\(report.passed.count) \(what); \(report.notRun.count) did not run") }
    return .ok("\(report.passed.count) \(what)")
  }

  /// A small model with biases, grouped heads and experts, all values random: finite differences give its gradient.
  private func gradient<B: Backend>(on backend: B) throws -> DoctorCheck.Result where B.Scalar == Double {
    let configuration = try DecoderConfiguration(
      [
        "model_type": "llama", "hidden_size": 12, "intermediate_size": 19, "num_hidden_layers": 2, "num_attention_heads": 3,
        "num_key_value_heads": 1, "vocab_size": 23, "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true,
      ], file: "the doctor's model")
    let lora = AdapterConfiguration.LoRA(rank: 2, alpha: 5)
    let adapter = AdapterConfiguration(lora: lora, mixture: .init(experts: 4, expertsPerToken: 2, lora: lora))
    let weights = RandomWeights(seed: 7, on: backend)
    let decoder = try Decoder(configuration, weights: weights, adapters: [AdapterSource(adapter, weights)], on: backend)
    let sequences = [
      PackedSequence(ids: [3, 1, 4, 1, 5], labels: [1, 4, nil, 5, nil]), PackedSequence(ids: [9, 2, 6], labels: [2, 6, nil]),
    ]
    let results = try ModelGradientCheck(decoder, sequences, on: backend).run(directions: 2)
    let limit = 1e-7
    for result in results where !(result.worst <= limit && result.gradientNorm > 0) {
      return .fail("\(result), expected at most \(limit) and a gradient that is not zero")
    }
    guard let worst = results.map(\.worst).max() else { return .fail("no parameter to differentiate by") }
    return .ok("\(results.count) groups of parameters, worst difference \(significant(worst)), limit \(significant(limit))")
  }

  /// LAPACK's singular values of a low-rank product against Jacobi's.
  private func singularValues() throws -> DoctorCheck.Result {
    let backend = CPUDouble(threads: 1)
    let b = backend.random(Shape(11, 3), .normal(deviation: 1), RandomKey(seed: 1))
    let a = backend.random(Shape(3, 7), .normal(deviation: 1), RandomKey(seed: 2))
    guard let found = backend.singularValues(2, b, a) else { return .fail("no singular values of a finite product") }
    let product = Naive.product(Matrix(11, 3, try backend.download(b)), Matrix(3, 7, try backend.download(a)))
    let expected = Naive.singularValues(product).prefix(3).map { 2 * $0 }
    let worst = found.indices.reduce(0) { worst, i in
      let error = abs(found[i] - expected[i]) / expected[0]
      return error <= worst ? worst : error  // NaN becomes the worst
    }
    guard found.count == 3, worst <= 1e-13 else { return .fail("singular values \(found), expected \(expected)") }
    return .ok("singular values of a low-rank product, off by \(significant(worst))")
  }
}
