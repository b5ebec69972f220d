import Decoders
import Layers
import Tensors

/// The provenance of every tensor that a trace of a model may have, read off the model's own structure.
///
/// What a family does otherwise (norms behind a layer, soft caps, windows, biases, gains of 1 + w), how experts are evaluated, what
/// adapters there are and whether the base is trained are in the layers, so this is one walk over them: forward in order
/// (`Provenances+Forward.swift`, `Provenances+FeedForward.swift`), backward in reverse (`Provenances+Backward.swift`), then what is
/// trained.
public struct Provenances<B: Backend> {
  /// In the order of a run: forward, backward, parameters, optimizer.
  public private(set) var all: [Provenance] = []
  /// The weights that are no part of an adapter's stack, by the names that the formulas have for them.
  public private(set) var weights: [String: Weight<B>] = [:]
  /// What is trained, by the names that the formulas have for it.
  public private(set) var trained: [String: TrainedTensor<B>] = [:]
  let decoder: Decoder<B>
  /// The blocks; every family's are sequential so far.
  public let blocks: [SequentialBlock<B>]
  let hasBaseRows: Bool
  private var index: [String: Int] = [:]
  private var names: [ObjectIdentifier: [String]] = [:]
  /// Whose tokens the points have that are being added.
  var rows = Provenance.Rows.all
  /// The formulas of parameters' gradients, by the parameters' names, until these are listed in their order.
  var gradients: [String: Formula] = [:]

  /// Of a trace of `decoder`.
  ///
  /// - Parameter hasBaseRows: whether some rows of the batch are served by no adapter; by default where there are several adapters.
  /// - Throws: `UnknownBlock` for a model with a block whose formulas are not here.
  public init(_ decoder: Decoder<B>, hasBaseRows: Bool? = nil) throws {
    self.decoder = decoder
    blocks = try decoder.blocks.map { block in
      guard let sequential = block as? SequentialBlock<B> else { throw UnknownBlock(path: block.path, type: "\(type(of: block))") }
      return sequential
    }
    self.hasBaseRows = hasBaseRows ?? (decoder.adapters.count > 1)
    for (part, prefix) in decoder.namedParts {
      for tensor in part.tensors {
        trained[prefix + tensor.name] = tensor
        names[ObjectIdentifier(tensor.parameter), default: []].append(prefix + tensor.name)
      }
    }
    addForward()
    addOutputs()
    addBackward()
    addParameters()
    assert(gradients.isEmpty, "a parameter's gradient has a formula and no parameter")
  }

  /// The provenance of a tensor of a trace; nil for a name that no trace of the model has.
  public subscript(_ name: String) -> Provenance? { index[name].map { all[$0] } }

  // MARK: Adding

  mutating func add(_ name: String, _ phase: Provenance.Phase, _ formula: Formula) {
    index[name] = all.count
    all.append(Provenance(name: name, phase: phase, formula: formula, rows: rows))
  }

  mutating func forward(_ name: String, _ formula: Formula) { add(name, .forward, formula) }

  mutating func backward(_ path: String, _ formula: Formula) { add(gradient(path), .backward, formula) }

  /// The name of the gradient of a point.
  func gradient(_ path: String) -> String { HookPoint(path: path, phase: .backward).description }

  /// The name of a weight: that of its parameter where it is trained, else the checkpoint's.
  mutating func weight(_ weight: Weight<B>, _ name: String) -> String {
    let name = weight.parameter.flatMap { names[ObjectIdentifier($0)]?.first } ?? name
    weights[name] = weight
    return name
  }

  /// The name of an adapter's parameter, or of expert e's part of it.
  func name(_ parameter: Parameter<B>, expert: Int = 0) -> String { names[ObjectIdentifier(parameter)]?[expert] ?? parameter.name }

  // MARK: Layers by their names

  mutating func formula(_ norm: RMSNorm<B>, of x: String) -> Formula.Norm {
    Formula.Norm(x: x, weight: weight(norm.weight, norm.path + ".weight"), offset: norm.offset, epsilon: norm.epsilon)
  }

  mutating func formula(
    _ linear: Linear<B>, _ path: String, of x: String, _ branches: [Formula.Branch], _ operation: OperationKind = .linear,
    rows: Formula.ExpertRows? = nil
  ) -> Formula.Linear {
    Formula.Linear(
      operation: operation, x: x, weight: weight(linear.weight, path + ".weight"),
      bias: linear.bias.map { weight($0, path + ".bias") }, base: nil, branches: branches, rows: rows)
  }

  func formula(_ branch: LoRABranch<B>) -> Formula.Branch {
    Formula.Branch(adapter: branch.adapter, a: name(branch.a), b: name(branch.b), scale: branch.scale)
  }

  func formula(_ lora: ExpertLoRA<B>?, expert: Int) -> Formula.Branch? {
    lora.map { Formula.Branch(adapter: nil, a: name($0.a, expert: expert), b: name($0.b, expert: expert), scale: $0.scale) }
  }

  func formula(_ router: Router<B>) -> Formula.Gate {
    Formula.Gate(path: router.path, adapter: router.adapter, experts: router.gate.shape.rows)
  }

  /// What a block reads.
  func input(ofBlock layer: Int) -> String { (layer == 0 ? decoder.embedding.path : decoder.blocks[layer - 1].path) + ".output" }

  /// The name of the head's weight, which may be the embedding's.
  var headName: String { decoder.configuration.head.isTied ? decoder.embedding.path + ".weight" : decoder.head.path + ".weight" }

  // MARK: What is trained

  /// Gradients and AdamW's results, in the order of a trace.
  private mutating func addParameters() {
    let tensors = decoder.namedParts.flatMap { part, prefix in part.tensors.map { (prefix, $0.name) } }
    for (prefix, name) in tensors {
      guard let formula = gradients.removeValue(forKey: prefix + name) else { trap("\(prefix)\(name): no formula has its gradient") }
      add(prefix + TraceNames.gradient + name, .backward, formula)
    }
    if !tensors.isEmpty { add("loss_curve", .optimizer, .lossCurve(loss: "loss", balance: "aux_loss")) }
    for (order, kind) in [(1, TraceNames.firstMoment), (2, TraceNames.secondMoment)] {
      for (prefix, name) in tensors {
        add(prefix + kind + name, .optimizer, .moment(order: order, gradient: prefix + TraceNames.gradient + name))
      }
    }
    for (prefix, name) in tensors {
      add(
        prefix + TraceNames.after + name, .optimizer,
        .update(weight: prefix + name, moment1: prefix + TraceNames.firstMoment + name, moment2: prefix + TraceNames.secondMoment + name))
    }
  }
}

/// A block of a kind that says nowhere what its values are formed of, so that a run of it cannot be traced.
public struct UnknownBlock: Error, CustomStringConvertible {
  /// Its path: `model.layers.3`.
  public let path: String
  /// Its type.
  public let type: String

  /// What is wrong, and what would be right.
  public var description: String { "\(path): found a \(type), of which Provenances has no formulas; expected a SequentialBlock" }
}

/// What the names of an optimizer's results begin with, behind `adapter.<number>.` where there are several; the moments have torch's
/// names.
enum TraceNames {
  static let gradient = "grad."
  static let firstMoment = "exp_avg."
  static let secondMoment = "exp_avg_sq."
  static let after = "after."
  /// All of an optimizer's, in the order of a trace.
  static let optimizer = [firstMoment, secondMoment, after]
}
