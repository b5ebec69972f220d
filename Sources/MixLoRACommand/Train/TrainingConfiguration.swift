import Checkpoints
import Decoders
import Samples
import Tensors
import Tokenization
import Training

/// What MoE-PEFT's training JSON says of an adapter.
///
/// A key that is absent or null leaves our default, which is MoE-PEFT's where both have one. `data` is a path as MoE-PEFT opens it:
/// relative to the working directory, not to the file. Several adapters are trained together, all at once. Keys that only steer what a
/// run does not have are checked and dropped: `train_strategy`, the numbers of adapters at once, which change nothing that is learnt,
/// `evaluate_batch_size`, and `warmup_steps`, which MoE-PEFT does not read either. A key that is unknown, or asks for what is not built
/// yet, is an error.
///
/// What a run does differs from MoE-PEFT's in this, on purpose: the loss counts the answers and not the padding (`--loss-on all` adds
/// the prompts), an end token follows, micro-batches are weighted by their tokens, every epoch is shuffled anew, and the gradient is
/// clipped (`--clip 0` turns that off). What is longer than `cutoff_len` keeps its first tokens, as there (`--too-long` has other ways).
struct TrainingConfiguration {
  /// The settings of an adapter; the model is not among them.
  private(set) var recipe = TrainingRecipe()
  /// The keys of settings, for messages. `batch_size/micro_batch_size` is the quotient.
  private(set) var keys = [
    "adapters": "lora", "name": "name", "data": "data", "task": "task_name", "template": "prompt", "length": "cutoff_len",
    "batch": "batch_size", "accumulate": "batch_size/micro_batch_size", "epochs": "num_epochs", "optimizer": "optim",
    "schedule": "scheduler_type", "lr": "lr", "weight-decay": "weight_decay", "momentum": "momentum", "warmup": "warmup_ratio",
    "lora-plus": "loraplus_lr_ratio", "rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora",
    "init": "lora_init", "targets": "target_modules", "method": "routing_strategy", "experts": "num_experts", "top-k": "top_k",
    "router-coefficient": "router_aux_loss_coef", "act_fn": "act_fn",
  ]
  /// The settings whose keys stand beside the adapters.
  static let topSettings: Set = ["adapters", "length"]
  /// The settings that no option has.
  static let unoptional: Set = ["adapters", "name", "act_fn"]
  /// What the file says, key by key.
  private var said: [String: JSON] = [:]

  /// Reads a file: the settings of each adapter, in its order.
  ///
  /// - Throws: `CheckpointError` naming file and key.
  static func adapters(contentsOf file: String) throws -> [TrainingConfiguration] {
    var common = TrainingConfiguration()
    var top = try JSONReader(JSON(contentsOf: file, skipsByteOrderMark: true), file: file, path: "")
    common.said["cutoff_len"] = top["cutoff_len"]
    if top["cutoff_len"]?.intValue == -1 {
      _ = top.value("cutoff_len")
      common.recipe.encoding.length = 0  // as many as the model has positions, as there
    } else {
      try common.integer("cutoff_len", of: &top, \.encoding.length, from: 2)
    }
    let saveStep = try top.positive("save_step")
    _ = try top.string("train_strategy", oneOf: ["optim", "none"])
    for key in ["train_lora_simultaneously_num", "train_lora_candidate_num", "inference_lora_simultaneously_num"] {
      _ = try top.positive(key)
    }
    for key in ["eval_lora_simultaneously_num", "eval_rollback_retrying_steps"] { _ = try top.positive(key) }
    _ = try top.bytes("evaluate_result")
    let adapters = try top.components("lora")
    guard !adapters.isEmpty else { throw top.error("lora", "no adapter", "at least one") }
    var configurations: [TrainingConfiguration] = []
    for var adapter in adapters {
      var own = common
      for key in own.keys.values { own.said[key] = own.said[key] ?? adapter[key] }
      try own.read(&adapter, saveStep: saveStep)
      try own.requireName(among: configurations.map(\.recipe), adapter, count: adapters.count)
      configurations.append(own)
    }
    try top.finish(unknown)
    return configurations
  }

  private mutating func read(_ adapter: inout JSONReader, saveStep: Int?) throws {
    recipe.name = try adapter.text("name")
    try readData(&adapter)
    let parts = try readBatches(&adapter)
    // MoE-PEFT counts micro-batches here.
    if let saveStep { recipe.saveEvery = max(1, saveStep / parts) }
    try readOptimizer(&adapter)
    try readBranches(&adapter)
    try readRouting(&adapter)
    try adapter.finish(Self.unknown)
  }

  /// Of several adapters each needs a name of its own.
  private func requireName(among others: [TrainingRecipe], _ adapter: JSONReader, count: Int) throws {
    guard count > 1 else { return }
    guard let name = recipe.name, !name.isEmpty else { throw adapter.error("name", "nothing", "a name: that of the adapter's folder") }
    guard TrainingRecipe.canBeFolder(name) else {
      throw adapter.error(
        "name", quoted(name),
        "the name of a folder: no \"/\", no control character, no dot in front, not \"checkpoint-…\" or \"state.json\"")
    }
    if let other = others.firstIndex(where: { $0.name?.lowercased() == name.lowercased() }) {
      throw adapter.error("name", quoted(name), "another name than that of lora[\(other)]")
    }
  }

  private static let unknown = "no such key; every key of a training configuration must be understood"

  // MARK: Data and optimizer

  private mutating func readData(_ adapter: inout JSONReader) throws {
    if let path = try adapter.text("data"), !path.isEmpty {
      guard !path.contains(";") else {
        throw adapter.error("data", quoted(path), "one folder of TASK/train.jsonl or one file; a list of paths is not built yet")
      }
      recipe.data = path
    }
    // "casual" is MoE-PEFT's name for records of one's own; its launcher writes "causal".
    if let tasks = try adapter.text("task_name"), !["", "casual", "causal"].contains(tasks) {
      for name in tasks.split(separator: ";") where QuestionTask(rawValue: String(name)) == nil {
        throw adapter.error(
          "task_name", quoted(String(name)), QuestionTask.allCases.map(\.rawValue).joined(separator: ", ") + "; others are not built yet")
      }
      recipe.task = tasks
    }
    if let prompt = try adapter.text("prompt") {
      guard let template = PromptTemplate(rawValue: prompt) else {
        throw adapter.error("prompt", quoted(prompt), "moe_peft, alpaca or chatml; a file with a template is not built yet")
      }
      recipe.encoding.template = template
    }
    try adapter.require("group_by_length", [false], "false")
    try adapter.require("evaluate_steps", [], "null: tasks are not evaluated while training")
  }

  /// Returns the parts that a batch is computed in.
  private mutating func readBatches(_ adapter: inout JSONReader) throws -> Int {
    let batch = try adapter.positive("batch_size")
    let micro = try adapter.positive("micro_batch_size")
    _ = try adapter.positive("evaluate_batch_size")
    try integer("num_epochs", of: &adapter, \.epochs)
    if let batch { recipe.batch = batch }
    guard let micro else { return 1 }
    guard let batch, batch % micro == 0 else {
      throw adapter.error("micro_batch_size", "\(micro)", "a divisor of batch_size\(batch.map { ", \($0)" } ?? ", which is not there")")
    }
    recipe.accumulate = batch / micro
    return recipe.accumulate
  }

  private mutating func readOptimizer(_ adapter: inout JSONReader) throws {
    try choice("optim", of: &adapter, \.optimizer)
    try choice("scheduler_type", of: &adapter, \.schedule)
    for (key, path) in [("lr", \TrainingRecipe.learningRate), ("weight_decay", \.weightDecay)] {
      try number(key, of: &adapter, path, "a number ≥ 0") { $0 >= 0 }
    }
    try number("momentum", of: &adapter, \.momentum, "a number in [0, 1)") { (0..<1).contains($0) }
    _ = try adapter.number("warmup_steps", "a number") { _ in true }
    try number("warmup_ratio", of: &adapter, \.warmup, "a share between 0 and 1") { (0...1).contains($0) }
    try number("loraplus_lr_ratio", of: &adapter, \.loraPlus, "a number ≥ 1") { $0 >= 1 }
  }

  // MARK: Adapter

  private mutating func readBranches(_ adapter: inout JSONReader) throws {
    try integer("r", of: &adapter, \.rank)
    try number("lora_alpha", of: &adapter, \.alpha, "a number > 0") { $0 > 0 }
    try number("lora_dropout", of: &adapter, \.dropout, "a number in [0, 1)") { (0..<1).contains($0) }
    try adapter.require("use_dora", [false], "false")
    recipe.isRankStabilized = try adapter.bool("use_rslora", default: false)
    if let name = try adapter.string("lora_init", oneOf: ["original", "gaussian"]) {
      recipe.initialization = name == "original" ? .kaiming : .gaussian
    }
    if let json = adapter.value("target_modules") { recipe.targets = try targets(json, adapter) }
  }

  /// The layers of a list of names or an object of name: bool.
  private func targets(_ json: JSON, _ adapter: JSONReader) throws -> [LinearName] {
    let key = "target_modules"
    let known = LinearName.allCases.map(\.rawValue)
    // Layers of other families, which MoE-PEFT's templates may list.
    let foreign = ["dense", "fc1", "fc2", "qkv_proj", "gate_up_proj", "dense_h_to_4h", "dense_4h_to_h"]
    func error(_ found: String, _ expected: String) -> CheckpointError { adapter.error(key, found, expected) }
    var chosen: Set<String> = []
    func read(_ name: String, _ isOn: Bool) throws {
      guard known.contains(name) || foreign.contains(name) else {
        throw error(quoted(name), "names among \(known.joined(separator: ", "))")
      }
      guard isOn else { return }
      guard known.contains(name) else { throw error(quoted(name), "layers that the models here have; this family is not built yet") }
      chosen.insert(name)
    }
    if let names = json.arrayValue {
      for name in names {
        guard let name = name.stringValue else { throw error(name.summary, "the name of a layer") }
        try read(name, true)
      }
    } else if let members = json.objectValue?.members {
      for member in members {
        guard let isOn = member.value.boolValue else { throw error("\(member.value.summary) for \"\(member.key)\"", "true or false") }
        try read(member.key, isOn)
      }
    } else {
      throw error(json.summary, "a list of names, or an object of name: true or false")
    }
    guard !chosen.isEmpty else { throw error("no layer", "at least one") }
    return LinearName.allCases.filter { chosen.contains($0.rawValue) }
  }

  private mutating func readRouting(_ adapter: inout JSONReader) throws {
    func unbuilt(_ key: String, _ value: String, _ expected: String) -> CheckpointError {
      adapter.error(key, quoted(value), expected + "; others are not built yet")
    }
    let type = try adapter.text("peft_type")
    let strategy = try adapter.text("routing_strategy")
    if let type, !["LORA", "MIXLORA"].contains(type) { throw unbuilt("peft_type", type, "LORA or MIXLORA") }
    if let strategy, strategy != "mixlora" { throw unbuilt("routing_strategy", strategy, "mixlora") }
    let hasRouter = type.map { $0 == "MIXLORA" } ?? (strategy != nil)
    recipe.method = hasRouter ? .mixlora : .lora
    if type != nil { keys["method"] = "peft_type" }
    try integer("num_experts", of: &adapter, \.experts)
    try integer("top_k", of: &adapter, \.topK)
    let hasLoss = try adapter.bool("router_loss", default: true)
    try number("router_aux_loss_coef", of: &adapter, \.routerCoefficient, "a number ≥ 0") { $0 >= 0 }
    if !hasLoss {
      recipe.routerCoefficient = 0
      keys["router-coefficient"] = "router_loss"
    }
    for (key, only) in [("router_init_range", 0.02), ("jitter_noise", 0)] {
      _ = try adapter.number(key, "\(only); other values are not built yet") { $0 == only }
    }
    if adapter.value("act_fn") != nil {
      recipe.activation = Activation(rawValue: try adapter.string("act_fn", oneOf: Activation.allCases.map(\.rawValue)))
    }
    try adapter.require("expert_lora", [.object(JSON.Object())], "nothing: the experts are like the other layers")
    for key in ["top_p", "temperature", "expert_capacity", "ffn_dropout", "router_z_loss_coef", "sparse_step"] {
      try adapter.require(key, [], "nothing: it belongs to another routing")
    }
  }

  // MARK: Values as the file has them

  /// Whether the file says a setting.
  func says(_ setting: String) -> Bool { keys[setting].map { (said[$0] ?? .null) != .null } ?? false }

  /// A value of a setting as the file has it, where it is the file's, else as a file would have it.
  func text(_ value: JSON, of setting: String) -> String {
    let key = keys[setting] ?? setting
    if value == recipe.json[setting], let own = said[key], own != .null, own.objectValue == nil { return own.serialized() }
    return switch (key, value) {
    case ("cutoff_len", 0): "-1"
    case ("lora_init", "kaiming"): "\"original\""
    case ("peft_type", _): JSON(value.stringValue?.uppercased() ?? "").serialized()
    case ("routing_strategy", "lora"): "none"
    case ("router_loss", _): value.doubleValue == 0 ? "false" : "true"
    default: value.serialized()
    }
  }

  // MARK: From a key to a setting

  private mutating func integer(
    _ key: String, of reader: inout JSONReader, _ path: WritableKeyPath<TrainingRecipe, Int>, from least: Int = 1
  ) throws {
    if let value = try reader.positive(key, from: least) { recipe[keyPath: path] = value }
  }

  private mutating func number(
    _ key: String, of reader: inout JSONReader, _ path: WritableKeyPath<TrainingRecipe, Double>, _ expected: String,
    where isValid: (Double) -> Bool
  ) throws {
    if let value = try reader.number(key, expected, where: isValid) { recipe[keyPath: path] = value }
  }

  private mutating func choice<Choice: RawRepresentable<String> & CaseIterable>(
    _ key: String, of reader: inout JSONReader, _ path: WritableKeyPath<TrainingRecipe, Choice>
  ) throws {
    let name = try reader.string(key, oneOf: Choice.allCases.map(\.rawValue))
    if let choice = name.flatMap(Choice.init(rawValue:)) { recipe[keyPath: path] = choice }
  }
}

extension JSONReader {
  /// A whole number; nil if it is absent or null.
  fileprivate mutating func positive(_ key: String, from least: Int = 1) throws -> Int? {
    guard let value = value(key) else { return nil }
    guard let integer = value.intValue, (least...1_000_000_000).contains(integer) else {
      throw error(key, value.summary, "a whole number, \(least) to 1000000000")
    }
    return integer
  }

  fileprivate mutating func number(_ key: String, _ expected: String, where isValid: (Double) -> Bool) throws -> Double? {
    guard let value = value(key) else { return nil }
    guard let number = value.doubleValue, number.isFinite, isValid(number) else { throw error(key, value.summary, expected) }
    return number
  }

  fileprivate mutating func text(_ key: String) throws -> String? { try bytes(key).map { String(decoding: $0, as: UTF8.self) } }

  fileprivate mutating func string(_ key: String, oneOf allowed: [String]) throws -> String? {
    guard let text = try text(key) else { return nil }
    guard allowed.contains(text) else { throw error(key, quoted(text), allowed.joined(separator: ", ")) }
    return text
  }
}
