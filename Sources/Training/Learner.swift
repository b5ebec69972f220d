import Checkpoints
import Decoders
import Layers
import Samples
import Tensors
import Tokenization

/// One adapter of a run, or the base weights where these are trained: what it learns, how, and what came of it so far.
public struct Learner<B: Backend> {
  /// Its settings.
  public let recipe: TrainingRecipe
  /// What is learnt, in the order of the data.
  public let samples: [EncodedSample]
  /// How many of them had more tokens than the recipe allows and kept the first ones alone.
  public let cutSamples: Int
  /// How many texts of the data are no sample: too long, or without a token that counts.
  public let droppedSamples: Int
  /// What the loss is reported of; empty without a file for it.
  public let validation: [EncodedSample]
  /// The steps that it makes: it is in the run's first ones.
  public let steps: Int
  /// The line of every step so far.
  public internal(set) var metrics: [Metrics] = []

  /// Its adapter's number in the model.
  let number: Int
  let form: TrainedFolder
  /// Its name below the folders of the run; nil if it is the only one, and these are its own.
  let place: String?
  var plan: BatchPlan
  /// The line of the best step by validation.
  var best: Metrics?
  var file: MetricsFile?

  /// Reads the data.
  ///
  /// - Throws: `CheckpointError` and `SettingsError` for data that cannot be learnt from.
  init(
    _ recipe: TrainingRecipe, number: Int, place: String?, _ model: ModelFolder, _ tokenizer: Tokenizer, note: (SettingsText) -> Void
  ) throws {
    func encoded(_ texts: [TextSample], from file: String) throws -> EncodedSamples {
      try recipe.encoding.samples(
        texts, with: tokenizer, chat: ChatLayout(model: recipe.model, tokenizer, recipe.encoding),
        vocabulary: model.configuration.vocabulary, positions: model.configuration.contextLength, from: file, note: note)
    }
    (self.recipe, self.number, self.place) = (recipe, number, place)
    form =
      recipe.method == .full ? .model(try ModelFolder.Files(model: recipe.model)) : .adapter(number, baseModel: recipe.model)
    let learnt = try encoded(try Self.texts(recipe, note: note), from: recipe.data)
    (samples, cutSamples, droppedSamples) = (learnt.samples, learnt.cut, learnt.dropped)
    validation =
      try recipe.validation.map {
        try encoded(TrainingData.samples($0, template: recipe.encoding.template, note: note), from: $0).samples
      } ?? []
    plan = BatchPlan(samples: samples.count, batch: recipe.batch, accumulate: recipe.accumulate, seed: recipe.ownSeed)
    steps = recipe.steps ?? recipe.epochs * plan.stepsPerEpoch
  }

  /// The texts that a recipe's data holds.
  private static func texts(_ recipe: TrainingRecipe, note: (SettingsText) -> Void) throws -> [TextSample] {
    guard MappedFile.isFolder(recipe.data) else {
      if recipe.task != nil { throw SettingsError("\(setting: "task") goes with a folder; \(recipe.data) is a file.") }
      return try TrainingData.samples(recipe.data, template: recipe.encoding.template, note: note)
    }
    return try TrainingData.samples(recipe.data, try QuestionTask.chosen(recipe.task, in: recipe.data, split: "train"), split: "train")
  }

  // MARK: Steps

  /// Steps in one pass over the data.
  public var stepsPerEpoch: Int { plan.stepsPerEpoch }

  /// The optimizer before its first step.
  func newOptimizer<Device: Backend>(_ decoder: Decoder<Device>, on backend: Device) -> any Optimizer<Device> {
    let parameters = form.part(of: decoder).parameters
    return switch recipe.optimizer {
    case .adamw:
      AdamW(
        parameters, learningRate: recipe.learningRate, weightDecay: recipe.weightDecay, loraPlusRatio: recipe.loraPlus, on: backend)
    case .adamw8bit:
      AdamW8bit(
        parameters, learningRate: recipe.learningRate, weightDecay: recipe.weightDecay, loraPlusRatio: recipe.loraPlus, on: backend)
    case .sgd:
      SGD(
        parameters, learningRate: recipe.learningRate, weightDecay: recipe.weightDecay, momentum: recipe.momentum,
        loraPlusRatio: recipe.loraPlus, on: backend)
    }
  }

  /// The learning rate of step `step`, counted from 0.
  func learningRate(atStep step: Int) -> Double {
    recipe.schedule.learningRate(
      atStep: step, of: steps, warmup: Int((recipe.warmup * Double(steps)).rounded(.up)), base: recipe.learningRate)
  }

  /// The micro-batches of step `step`, counted from 0, as sequences of its adapter; none once it has made its steps.
  mutating func microBatches(ofStep step: Int) -> [[PackedSequence]] {
    step < steps ? plan.microBatches(step: step).map(sequences) : []
  }

  /// The longest samples together: no shuffle makes a micro-batch of more tokens, of more labels or of a longer sequence.
  var longestMicroBatches: (byTokens: [PackedSequence], byLabels: [PackedSequence]) {
    let size = min(recipe.microBatch, samples.count)
    func longest(_ length: (EncodedSample) -> Int) -> [PackedSequence] {
      let lengths = samples.map(length)
      return sequences(Array(lengths.indices.sorted { (lengths[$0], $1) > (lengths[$1], $0) }.prefix(size)))
    }
    return (longest { $0.ids.count }, longest { $0.isLabel.count { $0 } })
  }

  private func sequences(_ chosen: [Int]) -> [PackedSequence] {
    chosen.map { samples[$0].sequence.serving(number) }
  }

  /// Whether the loss on the validation data is due behind step `step`, counted from 1.
  func validates(after step: Int) -> Bool { !validation.isEmpty && (step == steps || step % (recipe.evaluateEvery ?? steps) == 0) }

  // MARK: Files

  /// What a checkpoint says that its learning was started with: the recipe, what its data came to, and the steps that follow from it.
  var settings: JSON {
    var settings = JSON.Object()
    for member in recipe.json.objectValue?.members ?? [] {
      settings[member.key] = member.key == "steps" ? JSON(steps) : member.value
      guard member.key == "task" else { continue }
      settings["samples"] = JSON(samples.count)
      func digest(_ samples: [EncodedSample]) -> JSON { JSON(String(EncodedSample.digest(samples), radix: 16)) }
      settings["digest"] = digest(samples)
      settings["validation_digest"] = recipe.validation == nil ? .null : digest(validation)
    }
    return .object(settings)
  }

  /// Its own folder in one of the run.
  func folder(in folder: String) -> String { place.map { "\(folder)/\($0)" } ?? folder }

  /// Goes on with the lines of `metrics.jsonl` up to a step; later ones are cut off the file.
  mutating func resume(_ folder: String, at step: Int) throws {
    let own = self.folder(in: folder)
    try Folder.create(own)
    metrics = try MetricsFile.lines(own + "/metrics.jsonl", upTo: min(step, steps))
    file = try MetricsFile(own + "/metrics.jsonl", metrics)
    best = metrics.filter { $0.validationLoss != nil }.min { ($0.validationLoss ?? 0) < ($1.validationLoss ?? 0) }
  }

  /// Takes a line down, and whether it is the best by validation so far.
  mutating func add(_ line: Metrics) throws {
    metrics.append(line)
    try file?.append(line)
    if let loss = line.validationLoss, loss < best?.validationLoss ?? .infinity { best = line }
  }

  /// The trained values and the pictures of its learning.
  func writeResult(_ decoder: Decoder<B>, to folder: String, on backend: B) throws {
    let own = self.folder(in: folder)
    try Folder.create(own)
    try form.write(decoder, to: own, on: backend)
    try AtomicFile.write(Charts.loss(metrics), to: own + "/loss.svg")
    guard case .adapter = form else { return }
    if decoder.adapters[number].configuration.mixture != nil { try AdapterFolder.addPickle(to: own) }
    try AtomicFile.write(Charts.experts(metrics), to: own + "/experts.svg")
  }
}
