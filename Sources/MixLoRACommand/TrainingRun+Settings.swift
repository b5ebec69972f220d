import Checkpoints
import Training

extension TrainingRun {
  /// The step to go on from: nil for a new run, 0 if there is no complete checkpoint.
  func resumedStep() throws -> Int? {
    guard options.resume else {
      if !Folder.names(in: options.out).isEmpty, !options.dryRun {
        throw UsageError("--out \(options.out) is not empty; --resume goes on with a run, or choose another folder.")
      }
      return nil
    }
    if let step = TrainingCheckpoint.steps(in: options.out).last { return step }
    // A run that was killed before its first checkpoint has none of these: they are somebody's, and the run would write over them.
    let precious = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "config.json", "model.safetensors"]
    let isRun = Folder.exists(options.out + "/metrics.jsonl")
    if let name = Folder.names(in: options.out).first(where: { precious.contains($0) || !isRun && !$0.hasPrefix(".") }) {
      throw UsageError(
        "--resume finds no checkpoint in --out \(options.out), but \(name), which would be overwritten; choose another folder.")
    }
    return 0
  }

  /// Refuses to write the batches over a file that they are made from.
  func requireOwnDump() throws {
    guard let dump = options.dumpBatches, let place = try? Folder.absolute(dump) else { return }
    for (name, file) in [("--data", options.data), ("--validation", options.validation ?? ""), ("--model", options.model)]
    where (try? Folder.absolute(file)) == place {
      throw UsageError("--dump-batches \(dump) is the file of \(name), expected another name.")
    }
  }

  /// The threads to compute with: of a resumed run those that it was started with, for bits depend on them.
  ///
  /// - Throws: `UsageError` naming a setting that is not what the run was started with.
  func threads(_ resumed: Int?) throws -> Int {
    guard let resumed, resumed > 0 else { return options.common.threadCount }
    let old = try TrainingCheckpoint.settings(options.out, step: resumed)
    let threads = options.common.threads ?? old["threads"]?.intValue ?? options.common.threadCount
    let new = settingsJSON(threads: threads).objectValue?.members ?? []
    let changes = new.filter { old[$0.key] != $0.value }.map { setting in
      let (key, found, expected) = (setting.key, setting.value.serialized(), old[setting.key]?.serialized() ?? "nothing")
      return key == "samples"
        ? "--data has \(found) samples, but had \(expected) when the run was started."
        : key == "digest"
          ? "--data or --validation holds other samples than when the run was started."
          : "--\(key) is \(found), but the run was started with \(expected)."
    }
    guard changes.isEmpty else {
      throw UsageError(
        (changes + [
          "--resume takes the command that started the run; to train on under others, give --adapter \(options.out) another --out."
        ])
        .joined(separator: "\n"))
    }
    return threads
  }

  /// Everything that a resumed run must have in common with the run that it goes on with; a path is what was given.
  func settingsJSON(threads: Int) -> JSON {
    let o = options
    return [
      "model": JSON(o.model), "data": JSON(o.data), "task": o.task.map { JSON($0) } ?? nil, "samples": JSON(samples.count),
      "digest": JSON(String(EncodedSample.digest(samples + validation), radix: 16)),
      "epochs": JSON(o.epochs), "steps": JSON(steps), "method": JSON(o.method.rawValue), "adapter": o.adapter.map { JSON($0) } ?? nil,
      "rank": JSON(o.branches.rank), "alpha": JSON(o.alpha), "rslora": JSON(o.rslora), "dropout": JSON(o.branches.dropout),
      "init": JSON(o.initialisation.rawValue), "experts": JSON(o.branches.experts), "top-k": JSON(o.branches.topK),
      "targets": JSON(o.targets),
      "router-loss": JSON(o.routerLoss.rawValue), "router-coefficient": JSON(o.routerCoefficient),
      "evaluation": JSON(o.branches.evaluation.rawValue), "recompute": JSON(o.branches.recompute), "batch": JSON(o.batch),
      "accumulate": JSON(o.accumulate), "length": JSON(o.sampling.length), "optimizer": JSON(o.optimizer.rawValue),
      "momentum": JSON(o.momentum), "lr": JSON(o.lr), "schedule": JSON(o.schedule.rawValue), "warmup": JSON(o.warmup),
      "clip": JSON(o.clip), "weight-decay": JSON(o.weightDecay), "lora-plus": JSON(o.loraPlus),
      "template": JSON(o.sampling.template.rawValue), "loss-on": JSON(o.sampling.lossOn.rawValue),
      "no-end-token": JSON(o.sampling.noEndToken), "validation": o.validation.map { JSON($0) } ?? nil,
      "evaluate-every": o.evaluateEvery.map { JSON($0) } ?? nil, "seed": .number(JSON.Number(o.seed)), "threads": JSON(threads),
    ]
  }
}
