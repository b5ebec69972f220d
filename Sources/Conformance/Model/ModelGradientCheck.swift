import Decoders
import Layers
import Tensors
import Traces

/// Checks the gradient of a whole model against finite differences of its loss.
///
/// For a group of parameters θ with gradient g, and random directions d of norm 1,
///
///     fd = (8 (L(θ + hd) − L(θ − hd)) − (L(θ + 2hd) − L(θ − 2hd))) / 12h        error O(h⁴)
///     |fd − ⟨g, d⟩| ≤ ε · max(|⟨g, d⟩|, ‖g‖ / √n)                               n elements of θ
///
/// L is cross-entropy plus balance loss. The routing of the unperturbed model is held by a hook, because which
/// experts are chosen has no derivative; while training the dropout masks are held by their key. Meant for float64:
/// float32 leaves no digits for a difference.
public struct ModelGradientCheck<B: Backend> {
  private let decoder: Decoder<B>
  private let sequences: [PackedSequence]
  private let backend: B
  private let step: Double
  private let isTraining: Bool

  /// A check of `decoder` on the given sequences; `step` is h, `isTraining` switches dropout on.
  public init(_ decoder: Decoder<B>, _ sequences: [PackedSequence], isTraining: Bool = false, on backend: B, step: Double = 2e-4) {
    self.isTraining = isTraining
    self.decoder = decoder
    self.sequences = sequences
    self.backend = backend
    self.step = step
  }

  /// What was found for one group of parameters.
  public struct GroupResult: Sendable, CustomStringConvertible {
    /// The names of the parameters without layer numbers.
    public let group: String
    /// The largest |fd − ⟨g,d⟩| over max(|⟨g,d⟩|, ‖g‖/√n).
    public let worst: Double
    /// Directions tried.
    public let directions: Int
    /// ‖g‖; a group whose gradient is 0 everywhere proves nothing.
    public let gradientNorm: Double

    /// Name, error, norm.
    public var description: String { "\(group): worst \(worst) over \(directions) directions, ‖g‖ \(gradientNorm)" }
  }

  /// Checks every group along `directions` random directions.
  ///
  /// - Throws: what the device reports.
  public func run(directions: Int = 8, seed: UInt64 = 1) throws -> [GroupResult] {
    let batch = PackedBatch(sequences, on: backend)
    let recorder = Recorder(on: backend) { $0.hasSuffix(".choice") }
    _ = try loss(batch, [recorder], gradients: true)
    let routing = Replacement<B>(choices: recorder.choices.mapValues { backend.upload($0) })

    var groups: [(name: String, parameters: [Parameter<B>])] = []
    for parameter in decoder.parameters {
      let name = Agreement.kind(parameter.name)
      if let i = groups.firstIndex(where: { $0.name == name }) {
        groups[i].parameters.append(parameter)
      } else {
        groups.append((name, [parameter]))
      }
    }
    let allGradients = try groups.map { group in try group.parameters.map { try backend.download($0.gradient).map(Double.init) } }
    return try zip(groups, allGradients).map { group, gradients in
      let values = try group.parameters.map { try backend.download($0.value).map(Double.init) }
      let n = gradients.reduce(0) { $0 + $1.count }
      let norm = Agreement.norm(gradients.flatMap(\.self))
      var worst = 0.0
      for number in 0..<directions {
        let direction = try self.direction(group.parameters, seed: seed &+ UInt64(number))
        func shifted(by h: Double) throws -> Double {
          for (i, parameter) in group.parameters.enumerated() {
            let moved = values[i].indices.map { B.Scalar(values[i][$0] + h * direction[i][$0]) }
            parameter.value = backend.upload(moved, parameter.value.shape)
          }
          return try loss(batch, [routing], gradients: false)
        }
        let near = try shifted(by: step) - shifted(by: -step)
        let far = try shifted(by: 2 * step) - shifted(by: -2 * step)
        let difference = (8 * near - far) / (12 * step)
        let product = gradients.indices.reduce(0.0) { sum, i in
          sum + gradients[i].indices.reduce(0.0) { $0 + gradients[i][$1] * direction[i][$1] }
        }
        let error = abs(difference - product) / max(abs(product), norm / Double(n).squareRoot())
        worst = error <= worst ? worst : error  // NaN becomes the worst
      }
      for (i, parameter) in group.parameters.enumerated() {
        parameter.value = backend.upload(values[i].map { B.Scalar($0) }, parameter.value.shape)
      }
      return GroupResult(group: group.name, worst: worst, directions: directions, gradientNorm: norm)
    }
  }

  private func loss(_ batch: PackedBatch<B>, _ hooks: [any Hook<B>], gradients: Bool) throws -> Double {
    let run = Run(backend, training: isTraining ? TrainingPass(key: RandomKey(seed: 1), step: 1) : nil, hooks: hooks)
    let losses = gradients ? try decoder.gradients(of: batch, run) : try decoder.loss(of: batch, run)
    return try losses.reduce(0.0) { sum, part in
      let balance = try part.balance.map { try Double(backend.download($0)[0]) } ?? 0
      return try sum + Double(backend.download(part.crossEntropy)[0]) + balance
    }
  }

  /// A random direction of norm 1 in the space of all the parameters together.
  private func direction(_ parameters: [Parameter<B>], seed: UInt64) throws -> [[Double]] {
    let parts = try parameters.map { parameter in
      let key = RandomKey(seed: seed).derived(parameter.name, "direction")
      return try backend.download(backend.random(parameter.value.shape, .normal(deviation: 1), key)).map(Double.init)
    }
    let norm = Agreement.norm(parts.flatMap(\.self))
    return parts.map { $0.map { $0 / norm } }
  }
}
