import Checkpoints
import Foundation
import Testing

/// `mixlora train --dump-batches`: the batches of a run, for others to train on.
@Suite struct BatchFileTests {
  @Test func aStepIsABatchForTraceWithTheLossOfTheRun() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let file = folder.path + "/batches.safetensors"
    let run = try Program.run(TrainingCase.fullArguments(folder, "run", "--steps", "4", "--dump-batches", file))
    #expect(run.code == 0, "\(run.error)")
    let batches = try Safetensors(path: file)
    #expect(batches.entries.count == 12)
    #expect(batches.metadata["template"] == "moe_peft" && batches.metadata["seed"] == "42")
    // 11 samples in batches of 4: the third step is the short one, and the micro-batches of a step stand together.
    for (step, rows) in [(1, 4), (2, 4), (3, 3), (4, 4)] {
      #expect(batches.entry("step.\(step).input_ids")?.shape.first == rows, "step \(step)")
    }
    let names = ["input_ids", "attention_mask", "labels"]
    let entries = try names.map { name in
      let entry = try #require(batches.entry("step.1.\(name)"))
      #expect(entry.elementType == .int64)
      return try TensorEntry(name: name, elementType: .int64, shape: entry.shape)
    }
    let (ids, mask, labels) = try (integers(batches, names[0]), integers(batches, names[1]), integers(batches, names[2]))
    for i in ids.indices {
      #expect(labels[i] == -100 || labels[i] == ids[i], "labels stand under their own tokens")
      #expect(mask[i] == 1 || (ids[i] == 0 && labels[i] == -100), "padding is 0, 0, −100")
    }
    #expect(labels.contains { $0 != -100 } && mask.contains(0))
    let batch = folder.path + "/batch.safetensors"
    try SafetensorsWriter.write(to: batch, entries: entries) { entry, emit in
      try batches.withBytes(of: "step.1." + entry.name, emit)
    }
    let out = folder.path + "/trace.safetensors"
    let trace = try Program.run(["trace", "--model", folder.path + "/model", "--batch", batch, "--out", out, "--threads", "1"])
    #expect(trace.code == 0, "\(trace.error)")
    let traced = Double(try Safetensors(path: out).withBytes(of: "loss") { $0.load(as: Float.self) })
    let metrics = try String(contentsOfFile: folder.path + "/run/metrics.jsonl", encoding: .utf8).split(separator: "\n")
    let trained = try #require(try JSON(parsing: String(metrics[0]), file: "metrics")["loss"]?.doubleValue)
    #expect(abs(traced - trained) <= 1e-5 * trained, "\(traced) and \(trained)")
  }

  @Test func aDryRunWritesThemToo() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let file = folder.path + "/batches.safetensors"
    #expect(try Program.run(TrainingCase.arguments(folder, "run", "--epochs", "2", "--dry-run", "--dump-batches", file)).code == 0)
    #expect(try Safetensors(path: file).entries.count == 18)
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/run"))
  }

  private func integers(_ file: Safetensors, _ name: String) throws -> [Int64] {
    try file.withBytes(of: "step.1." + name) { Array($0.bindMemory(to: Int64.self)) }
  }
}
