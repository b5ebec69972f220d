import Checkpoints
import Decoders
import Layers
import Platform
import Tensors
import Tokenization
import Traces

/// What `mixlora step` walks through when nothing is given: the demo's base model, a task that it knows and one that it does not, and an
/// adapter that is drawn under a fixed seed.
enum StepLesson {
  /// A question with its answer, which is what counts.
  private static let samples = [("reverse: k d a ->", " a d k"), ("swap: r t ->", " t r")]
  private static let seed: UInt64 = 1

  static func open<B: Backend>(
    evaluation: ExpertEvaluation, balanceLoss: BalanceLossForm, on backend: B
  ) throws -> (Decoder<B>, TraceBatch) {
    let folder = "\(Machine.temporaryFolder)/mixlora-step-\(POSIX.processID)"
    defer { for part in ["/data", "/base", ""] { Folder.remove(folder + part) } }
    try DemoFiles.write(to: folder)
    let tokenizer = try Tokenizer(model: folder + "/base")
    let batch = TraceBatch(
      samples.map { question, answer in
        let ids = tokenizer.encode(question)
        return (ids + tokenizer.encode(answer), ids.count)
      })
    var mixture = AdapterConfiguration.Mixture(experts: 4, expertsPerToken: 2, lora: .init(rank: 2, alpha: 4))
    mixture.balanceCoefficient = 0.01
    let settings = AdapterConfiguration(lora: .init(rank: 2, alpha: 4), mixture: mixture)
    let decoder = try ModelFolder(folder + "/base").decoder(
      adapter: .new(settings, seed: seed), evaluation: evaluation, balanceLoss: balanceLoss, on: backend)
    // A new adapter does nothing, as its B are zero, and a new router hardly chooses: this one has both.
    let key = RandomKey(seed: seed)
    for tensor in decoder.trainedTensors where tensor.parameter.role != .a {
      let deviation = tensor.parameter.role == .router ? 0.1 : 0.02
      let shape = tensor.view(of: tensor.parameter.value).shape
      tensor.set(backend.random(shape, .normal(deviation: deviation), key.derived(tensor.name, "lesson")), on: backend)
    }
    return (decoder, batch)
  }
}
