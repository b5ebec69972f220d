import ArgumentParser
import Checkpoints
import Decoders
import Layers
import Samples
import Tensors
import Training

/// Fine-tunes a model with an adapter, or trains all of it.
struct TrainCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "train",
    abstract: "Fine-tune a model with a MixLoRA or LoRA adapter, or train all of it.",
    usage: "mixlora train [<options>] --model <path> --data <path> --out <folder>",
    discussion: """
      --data is a folder of TASK/train.jsonl (arc-e, arc-c, boolq, obqa, piqa, siqa, winogrande; --task chooses, several \
      separated by ';'), or a file of JSON Lines or one JSON array whose records have instruction, input, output and, if there were \
      earlier turns, system and history; or prompt, completion; or text; or messages, where weight 0 leaves a turn out of the loss. \
      What is cut, dropped or not read is said. Metrics, checkpoints and the adapter are written to --out. With --method full \
      the whole model is: a Hugging Face folder, ready for --model; it may begin from a folder with only config.json and the \
      tokenizer, whose weights are then drawn.

      --config reads what MoE-PEFT's launcher writes. Several adapters in it are trained together over one base, each as it would be \
      alone but for float32's rounding, which training enlarges until a router decides otherwise; adapter, metrics and pictures of each are \
      in the folder of its name in --out, and --json prints a line for each. An adapter's "data" is relative to the working directory, \
      and with "task_name" the folder of the tasks. --data is that of every adapter, and a note names each "data" that it displaces; to mix \
      tasks and files of one's own leave it out: {"task_name": "arc-e", "data": "tasks"} beside {"data": "mine.jsonl"}. \
      --adapter has a folder of the name of each then. warmup_steps is ignored, as there. On purpose \
      other than there: the loss counts answers and their end token, no prompt and no padding (--loss-on all adds the prompts); every epoch is shuffled anew; gradients are clipped (--clip 0 turns that off).

      --dump-batches writes step.N.input_ids, step.N.attention_mask and step.N.labels of every step N from 1, I64 (B,T), padded on \
      the right, and of several adapters step.N.adapter, I64 (B); without the prefix they are a batch for mixlora trace.

      --memory is a budget for the process, or for the device: the first blocks, as many as it takes, form their caches again in \
      backward, by arithmetic for the longest samples. It changes no bit of the result. --dry-run says what a run needs.

      Started by mpirun, mpiexec or srun, the processes are ranks of one run: they share out the parts of a step (--accumulate, at \
      least as many) and make the same files, to the bit, that one process makes. Rank 0 alone writes, to its --out, and prints. MPI's library \
      is found by itself, or is the file in MIXLORA_MPI.

      Examples:
        mixlora train --model SmolLM2-135M --data tasks --task 'arc-e;boolq;obqa' --out mixture --steps 300 --batch 8 --rank 8 --alpha 16
        mixlora train --model SmolLM2-135M --data mine.jsonl --out run --dry-run
        mixlora train --model SmolLM2-135M --data mine.jsonl --out run --validation held-out.jsonl --evaluate-every 50
        mixlora train --model SmolLM2-135M --data mine.jsonl --out run --validation held-out.jsonl --evaluate-every 50 --resume
        mixlora train --model SmolLM2-135M --data tasks --config moe_peft.json --out several
        mpirun -n 4 --bind-to none mixlora train --model SmolLM2-135M --data mine.jsonl --out ranks --accumulate 8 --threads 4
      """)

  @Option(help: ArgumentHelp("Model to fine-tune: a Hugging Face folder or a GGUF file.", valueName: "path"))
  var model: String
  @Option(help: ArgumentHelp(TrainCommand.dataHelp, valueName: "path"))
  var data: String?
  @Option(help: ArgumentHelp("Tasks of a folder, separated by ';' (default: all that are there).", valueName: "tasks"))
  var task: String?
  @Option(help: ArgumentHelp("Folder for everything that is written.", valueName: "folder"))
  var out: String
  @Option(help: "What is trained: mixlora; lora, without experts; full, all weights of the model.")
  var method = Setting(TrainingRecipe.Method.mixlora)
  @Option(help: ArgumentHelp("Adapter to start from; its settings hold, and options that say otherwise are refused.", valueName: "folder"))
  var adapter: String?

  @OptionGroup var branches: BranchOptions
  @Option(help: "alpha; branches are scaled by alpha/rank.")
  var alpha = Setting(32.0)
  @Flag(help: "Scale branches by alpha/√rank.")
  var rslora = false
  @Option(name: .customLong("init"), help: "How branches begin: pissa and olora from the weights themselves (--method lora).")
  var initialization = Setting(AdapterConfiguration.Initialization.kaiming)
  @Option(help: ArgumentHelp("Linear layers with branches, separated by ','.", valueName: "names"))
  var targets = Setting(LinearName.allCases.map(\.rawValue).joined(separator: ","))
  @Option(help: "Form of the balance loss.")
  var routerLoss = Setting(BalanceLossForm.pooledTopK)
  @Option(help: "Coefficient of the balance loss.")
  var routerCoefficient = Setting(0.001)

  @Option(
    help: ArgumentHelp(
      "Memory that the run may take, as 600M or 1.5G (K, M, G, T: powers of 1000; KiB to TiB: of 1024): as many blocks are recomputed as that needs.",
      valueName: "bytes"), transform: ByteCount.init)
  var memory: ByteCount?

  @Option(help: "Steps to make (default: --epochs).")
  var steps: Int?
  @Option(help: "Passes over the data.")
  var epochs = Setting(2)
  @Option(help: "Samples in a step.")
  var batch = Setting(16)
  @Option(help: "Equal parts that a step is computed in.")
  var accumulate = Setting(1)
  @Option(help: "adamw; adamw8bit, whose moments take a quarter of the memory; or sgd.")
  var optimizer = Setting(TrainingRecipe.OptimizerName.adamw)
  @Option(help: "Momentum of sgd, from 0 to less than 1.")
  var momentum = Setting(0.0)
  @Option(help: "Learning rate.")
  var lr = Setting(2e-4)
  @Option(help: "How the learning rate changes.")
  var schedule = Setting(LearningRateSchedule.constant)
  @Option(help: "Share of the steps that are warm-up.")
  var warmup = Setting(0.0)
  @Option(help: "Largest norm of the gradient; 0 for no limit.")
  var clip = Setting(1.0)
  @Option(help: "Weight decay.")
  var weightDecay = Setting(0.01)
  @Option(help: "What every B's learning rate is multiplied with.")
  var loraPlus = Setting(1.0)
  @OptionGroup var sampling: SampleOptions
  @Option(help: ArgumentHelp("File of samples whose loss is reported.", valueName: "file"))
  var validation: String?
  @Option(help: "Steps between validations (default: at the end).")
  var evaluateEvery: Int?
  @Option(help: "Seed of everything random.")
  var seed = Setting<UInt64>(42)
  @Option(help: "Steps between checkpoints.")
  var saveEvery = Setting(100)
  @Option(help: "Checkpoints to keep: the newest ones, and beside them the best by validation.")
  var keep = Setting(2)
  @Flag(help: "Go on from the newest checkpoint in --out that is whole.")
  var resume = false
  @Flag(help: "Print parameters, memory and the first sample, and stop.")
  var dryRun = false
  @Option(help: ArgumentHelp("Write every step's ids, mask and labels to this safetensors file first.", valueName: "file"))
  var dumpBatches: String?
  @Option(
    help: ArgumentHelp(
      "Options from a training JSON of MoE-PEFT, one or several adapters, each with its own \"data\"; options given here win.",
      valueName: "file"))
  var config: String?
  @Flag(help: "Print one JSON object at the end.")
  var json = false
  @OptionGroup var ranks: RankOptions
  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  /// What the parser says of an option that must be there; this one may stand in a configuration instead.
  private static let missingData = "Missing expected argument '--data <path>'\nHelp:  --data <path>  \(dataHelp)"
  private static let dataHelp = "Folder of tasks, or a file; with --config in place of every adapter's own \"data\"."

  func validate() throws {
    if method.value == .full { try refuseAdapterOptions() }
    // What a configuration says is not read while arguments are parsed; the run checks all of it together.
    guard config == nil else { return }
    guard data != nil else { throw ValidationError(Self.missingData) }
    try validating { for recipe in try recipes() { try recipe.check() } }
  }

  func run() throws {
    let names = try names()
    let recipes = names.recipes
    try names.naming {
      for (number, recipe) in recipes.enumerated() { try SettingsError.about(recipe: number) { try recipe.check() } }
      // A run goes on as it was started.
      if !resume || TrainingCheckpoint.steps(in: out).isEmpty { try refuseUnused(names) }
    }
    if let first = recipes.firstIndex(where: \.data.isEmpty) {
      guard let config, recipes.count > 1 else { throw UsageError(Self.missingData) }
      throw CheckpointError(
        file: config, place: .key("lora[\(first)].data"), found: "nothing",
        expected: "a path, with task_name that of the folder of tasks; or --data for all adapters")
    }
    try Ranks.join(ranks)
    // Bits depend on the threads, so a resumed run has those that it was started with.
    let kept = resume && Ranks.isFirst && common.threads == nil ? TrainingCheckpoint.threads(ofRunIn: out) : nil
    try compute(threads: Ranks.agreedThreads(common, kept: kept))
  }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    let names = try names()
    var recipes = names.recipes
    for i in recipes.indices { recipes[i].threads = backend.threadCount }
    try requireOwnDump(recipes)
    try requireMemory(for: recipes, names)
    try names.naming {
      try notes(names)
      let run = try TrainingRun(
        recipes, out: dryRun && !resume ? nil : out, resumes: resume, ranks: Ranks.current, on: backend,
        note: { writeNotes([names.text($0)]) }, held: { backend.held })
      if !dryRun { try run.prepare() }
      if let dumpBatches, Ranks.isFirst { try run.writeBatches(to: dumpBatches) }
      let text: String
      if dryRun {
        let preview = try TrainingPreview(run, held: backend.held)
        if device.backend == .cpu { writeNotes(preview.shortage(of: Machine.mostBytes).map { [names.text($0)] } ?? []) }
        text = preview.text(json: json)
      } else {
        text = run.report(try makeSteps(of: run), out: out, json: json)
      }
      if Ranks.isFirst { print(text) }
    }
  }

  /// Makes the steps. Where one of several adapters diverges, it says how the others go on.
  private func makeSteps<B: Backend>(of run: TrainingRun<B>) throws -> TrainingPace {
    do { return try run.run(quiet: common.quiet) } catch let error as NonFiniteValue {
      if let text = advice(for: run) { writeNotes([text]) }
      throw error
    }
  }

  /// How the adapters that have steps left go on without the one that diverged.
  private func advice<B: Backend>(for run: TrainingRun<B>) -> String? {
    func names(where isMeant: (Int) -> Bool) -> [String] {
      run.learners.indices.filter(isMeant).compactMap { run.learners[$0].recipe.name }
    }
    func goesOn(_ number: Int) -> Bool { number != run.diverged && run.learners[number].steps > run.step }
    let (left, others) = (names(where: goesOn), names { !goesOn($0) })
    guard let config, run.diverged != nil, !left.isEmpty else { return nil }
    let checkpoint = TrainingCheckpoint.path(out, step: run.step) + (left.count == 1 ? "/" + left[0] : "")
    return "--resume comes to the same step. To train \(left.joined(separator: ", ")) without \(others.joined(separator: ", ")), take "
      + "\(others.count == 1 ? "that" : "those") out of \(config) and give another --out"
      + (run.step == 0
        ? "." : "; --adapter \(checkpoint) begins with the values of step \(run.step), with all steps to come and new moments.")
  }

  /// Says which data of the configuration an option displaces, and which of its keys an adapter to start from has otherwise.
  private func notes(_ names: SettingNames) throws {
    for (number, configured) in names.configured.enumerated() {
      let own = configured.recipe.data
      guard let config, let data, !own.isEmpty, own != data else { continue }
      writeNotes(["\(config): lora[\(number)].data is \(quoted(own)), but --data \(data) is given and takes its place."])
    }
    for (number, recipe) in names.recipes.enumerated() {
      let texts = try recipe.differences(fromOwnAdapter: { !names.given.contains("--" + $0) && names.configured[number].says($0) })
      writeNotes(texts.map { names.text($0.about(recipe: number)) })
    }
  }

  /// The settings of each adapter: those of `--config`, and over them what is given here.
  func recipes() throws -> [TrainingRecipe] { try names().recipes }

  /// The same, and what they are called.
  private func names() throws -> SettingNames {
    let configured = try config.map { try TrainingConfiguration.adapters(contentsOf: $0) } ?? [TrainingConfiguration()]
    let recipes = try configured.map { configuration in
      var recipe = configuration.recipe
      try override(&recipe)
      // Several begin each with its own, as MoE-PEFT's --load_adapter lets them.
      if let adapter, configured.count > 1 { recipe.adapter = "\(adapter)/\(recipe.name ?? "")" }
      return recipe
    }
    return SettingNames(file: config, configured: configured, recipes: recipes, given: Set(given))
  }

  private func override(_ recipe: inout TrainingRecipe) throws {
    recipe.model = model
    recipe.data = data ?? recipe.data
    recipe.task = task ?? recipe.task
    recipe.adapter = adapter ?? recipe.adapter
    recipe.validation = validation ?? recipe.validation
    recipe.evaluateEvery = evaluateEvery ?? recipe.evaluateEvery
    recipe.steps = steps ?? recipe.steps
    recipe.memory = memory?.bytes ?? recipe.memory
    recipe.threads = common.threads ?? recipe.threads
    method.override(&recipe.method)
    branches.override(&recipe)
    alpha.override(&recipe.alpha)
    if rslora { recipe.isRankStabilized = true }
    initialization.override(&recipe.initialization)
    if targets.isGiven { recipe.targets = try Self.linearNames(targets.value) }
    routerLoss.override(&recipe.routerLoss)
    routerCoefficient.override(&recipe.routerCoefficient)
    epochs.override(&recipe.epochs)
    batch.override(&recipe.batch)
    accumulate.override(&recipe.accumulate)
    optimizer.override(&recipe.optimizer)
    momentum.override(&recipe.momentum)
    lr.override(&recipe.learningRate)
    schedule.override(&recipe.schedule)
    warmup.override(&recipe.warmup)
    clip.override(&recipe.clip)
    weightDecay.override(&recipe.weightDecay)
    loraPlus.override(&recipe.loraPlus)
    sampling.override(&recipe.encoding)
    seed.override(&recipe.seed)
    saveEvery.override(&recipe.saveEvery)
    keep.override(&recipe.keep)
  }

  private static func linearNames(_ list: String) throws -> [LinearName] {
    try list.split(separator: ",").map { name in
      guard let target = LinearName(rawValue: String(name)) else {
        throw ValidationError(
          "--targets names '\(name)', expected names among \(LinearName.allCases.map(\.rawValue).joined(separator: ","))")
      }
      return target
    }
  }

  /// Training all weights has no adapter, so what describes one would be ignored.
  private func refuseAdapterOptions() throws {
    let ofAdapters: Set = [
      "--config", "--adapter", "--rank", "--alpha", "--rslora", "--dropout", "--init", "--experts", "--top-k", "--targets", "--router-loss",
      "--router-coefficient", "--evaluation", "--lora-plus",
    ]
    if let name = given.first(where: ofAdapters.contains) {
      throw ValidationError("\(name) goes with an adapter; --method full trains the model's own weights.")
    }
  }

  /// The options that were given and say how a run is made, by name.
  private var given: [String] {
    let options = [
      ("--config", config != nil), ("--model", true), ("--data", data != nil), ("--task", task != nil), ("--adapter", adapter != nil),
      ("--method", method.isGiven), ("--alpha", alpha.isGiven), ("--rslora", rslora), ("--init", initialization.isGiven),
      ("--targets", targets.isGiven), ("--router-loss", routerLoss.isGiven), ("--router-coefficient", routerCoefficient.isGiven),
      ("--memory", memory != nil), ("--steps", steps != nil), ("--epochs", epochs.isGiven), ("--batch", batch.isGiven),
      ("--accumulate", accumulate.isGiven), ("--optimizer", optimizer.isGiven), ("--momentum", momentum.isGiven), ("--lr", lr.isGiven),
      ("--schedule", schedule.isGiven), ("--warmup", warmup.isGiven), ("--clip", clip.isGiven), ("--weight-decay", weightDecay.isGiven),
      ("--lora-plus", loraPlus.isGiven), ("--validation", validation != nil), ("--evaluate-every", evaluateEvery != nil),
      ("--seed", seed.isGiven), ("--save-every", saveEvery.isGiven), ("--keep", keep.isGiven), ("--threads", common.threads != nil),
    ]
    return options.filter(\.1).map(\.0) + branches.given + sampling.given
  }

  /// Options that a run does not read, or that say something else than the adapter to start from has, would be ignored.
  private func refuseUnused(_ names: SettingNames) throws {
    let (recipes, own) = (names.recipes, try names.recipes.map { try $0.startingConfiguration() })
    func refuse(_ options: Set<String>, because reason: String) throws {
      if let name = given.first(where: options.contains) { throw UsageError("\(name) does nothing: \(reason).") }
    }
    let hasExperts = zip(recipes, own).contains { recipe, own in own.map { $0.mixture != nil } ?? (recipe.method == .mixlora) }
    for (number, recipe) in recipes.enumerated() {
      // Of several adapters only some need to read an option.
      let isAsked = { (setting: String) in
        names.given.contains("--" + setting) && (own[number]?.mixture != nil || !Self.ofExperts.contains("--" + setting))
      }
      if let text = try recipe.differences(fromOwnAdapter: isAsked).first { throw SettingsError(text.about(recipe: number)) }
    }
    if !hasExperts, recipes.allSatisfy({ $0.method != .full }) {
      try refuse(Self.ofExperts, because: "what is trained has no experts")
    }
    if recipes.allSatisfy({ $0.optimizer != .sgd }) { try refuse(["--momentum"], because: "it is for --optimizer sgd") }
    if steps != nil { try refuse(["--epochs"], because: "--steps says how many are made") }
    if validation == nil { try refuse(["--evaluate-every"], because: "there is no --validation") }
  }

  private static let ofExperts = BranchOptions.ofExperts.union(["--router-loss", "--router-coefficient"])

  /// Refuses to write the batches over a file that they are made from.
  private func requireOwnDump(_ recipes: [TrainingRecipe]) throws {
    guard let dump = dumpBatches, let place = try? Folder.absolute(dump) else { return }
    for (name, file) in recipes.flatMap({ [("--data", $0.data), ("--validation", $0.validation ?? ""), ("--model", $0.model)] })
    where (try? Folder.absolute(file)) == place {
      throw UsageError("--dump-batches \(dump) is the file of \(name), expected another name.")
    }
  }
}

extension TrainCommand {
  /// Refuses a run whose drawn weights or new adapters, with gradients and moments, are more than this process can hold.
  private func requireMemory(for recipes: [TrainingRecipe], _ names: SettingNames) throws {
    let files = try ModelFolder(model, newUnder: recipes.first { $0.method == .full }?.seed)
    if files.isNew { try requireMemory(16 * files.configuration.parameterCount, for: "the weights", input: model + "/config.json") }
    let counts = recipes.map { recipe in
      recipe.adapter == nil ? recipe.adapterConfiguration?.parameterCount(in: files.configuration) ?? 0 : 0
    }
    let largest = counts.indices.max { counts[$0] < counts[$1] } ?? 0
    let asking: SettingsText = "\(setting: "rank"), \(setting: "experts")"
    try requireMemory(
      16 * counts.reduce(0, +), for: "the adapter\(recipes.count > 1 ? "s" : "")", input: names.text(asking.about(recipe: largest)))
  }
}
