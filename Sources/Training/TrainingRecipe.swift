import Checkpoints
import Decoders
import Layers
import Samples
import Tensors

/// Everything that decides what a training run does: model, data, what is trained and how.
///
///     var recipe = TrainingRecipe.mixlora(rank: 8, experts: 8)
///     recipe.learningRate = 1e-3
///
/// Two runs of equal recipes on equal data give the same bits, on one machine. ``json`` has the settings by name: what a checkpoint
/// keeps, and what a resumed run is compared with.
public struct TrainingRecipe: Equatable, Sendable {
  /// What is trained.
  public enum Method: String, CaseIterable, Sendable {
    /// A mixture of low-rank experts, with low-rank branches on attention.
    case mixlora
    /// Low-rank branches alone.
    case lora
    /// All weights of the model.
    case full
  }

  /// The optimizers by name.
  public enum OptimizerName: String, CaseIterable, Sendable {
    /// ``AdamW``.
    case adamw
    /// ``AdamW8bit``.
    case adamw8bit
    /// ``SGD``.
    case sgd
  }

  // MARK: Model and data

  /// The model: a Hugging Face folder or a GGUF file.
  public var model = ""
  /// A file of samples, or a folder of tasks.
  public var data = ""
  /// Tasks of a folder, separated by ';'; nil for all that are there.
  public var task: String?
  /// How texts become samples.
  public var encoding = SampleEncoding()
  /// A file of samples whose loss is reported.
  public var validation: String?
  /// Steps between validations; nil for one at the end.
  public var evaluateEvery: Int?

  // MARK: What is trained

  /// What the adapter is called: its folder, where a run has several, and a part of the key of its random numbers.
  public var name: String?
  /// What is trained.
  public var method = Method.mixlora
  /// The folder of an adapter to start from, whose settings then hold; nil for a new one.
  public var adapter: String?
  /// Rank r of the low-rank branches.
  public var rank = 16
  /// alpha: branches are scaled by alpha/r.
  public var alpha = 32.0
  /// Whether branches are scaled by alpha/√r instead (rsLoRA).
  public var isRankStabilized = false
  /// Dropout of what the branches read.
  public var dropout = 0.05
  /// How every A is drawn.
  public var initialization = AdapterConfiguration.Initialization.kaiming
  /// Experts E.
  public var experts = 8
  /// Experts per token K.
  public var topK = 2
  /// The experts' nonlinearity (MoE-PEFT's `act_fn`); nil for the model's own.
  public var activation: Activation?
  /// The linear layers with branches, in the order in which they were named.
  public var targets = LinearName.allCases
  /// Form of the balance loss.
  public var routerLoss = BalanceLossForm.pooledTopK
  /// Coefficient of the balance loss.
  public var routerCoefficient = 0.001
  /// How the experts are computed; equal up to rounding.
  public var evaluation = ExpertEvaluation.sharedBase
  /// Whether backward forms each block's caches again: less memory, more time, the same bits.
  public var recomputes = false
  /// Bytes of memory that the run may take: as many blocks are recomputed as that needs, no more. Nil for no limit.
  public var memory: Int?

  // MARK: Steps

  /// Steps to make; nil for `epochs`.
  public var steps: Int?
  /// Passes over the data, where `steps` is nil.
  public var epochs = 2
  /// Samples in a step.
  public var batch = 16
  /// Equal parts that a step is computed in.
  public var accumulate = 1
  /// Samples that are computed together, in steps and in validation.
  public var microBatch: Int { batch / accumulate }
  /// The optimizer.
  public var optimizer = OptimizerName.adamw
  /// Momentum of SGD, in [0, 1).
  public var momentum = 0.0
  /// Learning rate lr, which the schedule varies.
  public var learningRate = 2e-4
  /// How the learning rate changes.
  public var schedule = LearningRateSchedule.constant
  /// Share of the steps that are warm-up.
  public var warmup = 0.0
  /// Largest norm of the gradient; 0 for no limit.
  public var clip = 1.0
  /// Weight decay.
  public var weightDecay = 0.01
  /// What every B's learning rate is multiplied with (LoRA+).
  public var loraPlus = 1.0
  /// Seed of everything random.
  public var seed: UInt64 = 42
  /// Threads of the backend, on which the last bits depend; nil if nobody said.
  public var threads: Int?

  // MARK: Checkpoints

  /// Steps between checkpoints.
  public var saveEvery = 100
  /// Checkpoints to keep: the newest ones, and beside them the best by validation.
  public var keep = 2

  /// The defaults: MixLoRA with 8 experts of rank 16.
  public init() {}

  /// MixLoRA with E experts of rank r, and branches of rank r on attention; alpha is twice the rank.
  public static func mixlora(rank: Int = 16, experts: Int = 8, topK: Int = 2) -> TrainingRecipe {
    var recipe = lora(rank: rank)
    (recipe.method, recipe.experts, recipe.topK) = (.mixlora, experts, topK)
    return recipe
  }

  /// Plain LoRA of rank r; alpha is twice the rank.
  public static func lora(rank: Int = 16) -> TrainingRecipe {
    var recipe = TrainingRecipe()
    (recipe.method, recipe.rank, recipe.alpha) = (.lora, rank, 2 * Double(rank))
    return recipe
  }

  /// All weights of a model.
  public static var full: TrainingRecipe {
    var recipe = TrainingRecipe()
    recipe.method = .full
    return recipe
  }

  /// Where the adapter comes from; none where all weights are trained.
  public var origin: AdapterOrigin {
    adapterConfiguration.map { settings in adapter.map { .folder($0) } ?? .new(settings, seed: ownSeed) } ?? .none
  }

  /// The settings of a new adapter; nil where all weights are trained.
  public var adapterConfiguration: AdapterConfiguration? {
    guard method != .full else { return nil }
    var lora = AdapterConfiguration.LoRA(rank: rank, alpha: alpha, dropout: dropout, isRankStabilized: isRankStabilized)
    lora.initialization = initialization
    var mixture: AdapterConfiguration.Mixture?
    if method == .mixlora {
      var settings = AdapterConfiguration.Mixture(experts: experts, expertsPerToken: topK, lora: lora)
      settings.balanceCoefficient = routerCoefficient
      settings.activation = activation
      mixture = settings
    }
    return AdapterConfiguration(lora: lora, targets: Set(targets), mixture: mixture)
  }

  /// Everything that a resumed run must have in common with the run that it goes on with, by name; a path is what was given.
  public var json: JSON {
    let settings: JSON = [
      "model": JSON(model), "data": JSON(data), "task": Self.json(task), "epochs": JSON(epochs),
      "steps": steps.map { JSON($0) } ?? .null, "method": JSON(method.rawValue), "adapter": Self.json(adapter),
      "rank": JSON(rank), "alpha": JSON(alpha), "rslora": JSON(isRankStabilized), "dropout": JSON(dropout),
      "init": JSON(initialization.rawValue), "experts": JSON(experts), "top-k": JSON(topK),
      "targets": JSON(targets.map(\.rawValue).joined(separator: ",")), "router-loss": JSON(routerLoss.rawValue),
      "router-coefficient": JSON(routerCoefficient), "evaluation": JSON(evaluation.rawValue), "recompute": JSON(recomputes),
      "batch": JSON(batch), "accumulate": JSON(accumulate), "length": JSON(encoding.length), "optimizer": JSON(optimizer.rawValue),
      "momentum": JSON(momentum), "lr": JSON(learningRate), "schedule": JSON(schedule.rawValue), "warmup": JSON(warmup),
      "clip": JSON(clip), "weight-decay": JSON(weightDecay), "lora-plus": JSON(loraPlus), "template": JSON(encoding.template.rawValue),
      "loss-on": JSON(encoding.lossOn.rawValue), "no-end-token": JSON(!encoding.addsEndToken), "validation": Self.json(validation),
      "evaluate-every": evaluateEvery.map { JSON($0) } ?? .null, "seed": .number(JSON.Number(seed)),
      "threads": threads.map { JSON($0) } ?? .null,
    ]
    // These came later: a checkpoint without them has the defaults.
    guard case .object(var object) = settings else { return settings }
    if let name { object["name"] = JSON(name) }
    if let system = encoding.system { object["system"] = JSON(system) }
    if encoding.tooLong != .cut { object["too-long"] = JSON(encoding.tooLong.rawValue) }
    if let memory { object["memory"] = JSON(memory) }
    if let activation { object["act_fn"] = JSON(activation.rawValue) }
    return .object(object)
  }

  /// What everything random of the adapter is drawn under. It is of the name, too: adapters of one run draw different numbers, and each
  /// those that it would draw alone.
  public var ownSeed: UInt64 { name.map { RandomKey(seed: seed).derived($0, "adapter").bits } ?? seed }

  private static func json(_ text: String?) -> JSON { text.map { JSON($0) } ?? .null }
}
