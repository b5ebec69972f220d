import Checkpoints
import Foundation
import Testing
import Traces

@Suite struct TraceCommandTests {
  private func arguments(_ folder: URL, _ extra: String...) -> [String] {
    [
      "trace", "--model", folder.path + "/model", "--adapter", folder.path + "/adapter", "--batch", folder.path + "/batch.safetensors",
      "--out", folder.path + "/out.safetensors",
    ] + extra
  }

  @Test func aTraceHasTheTensorsOfItsContractInTheRequestedType() throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("topk")
    let result = try Program.run(arguments(folder, "--backward", "--steps", "2", "--dtype", "float64", "--threads", "1"))
    #expect(result.code == 0, "\(result.error)")
    #expect(result.output.isEmpty)
    let trace = try Safetensors(path: folder.path + "/out.safetensors")
    let expected = try Safetensors(path: folder.path + "/expected64.safetensors")
    #expect(Set(trace.entries.map(\.name)) == Set(expected.entries.map(\.name)))
    for entry in trace.entries {
      #expect(entry.elementType == .float64)
      #expect(entry.shape == (entry.name == "loss_curve" ? [2] : expected.entry(entry.name)?.shape), "\(entry.name)")
    }
    let left = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    #expect(
      Set(left) == ["adapter", "batch.safetensors", "expected64.safetensors", "model", "out.safetensors"], "a temporary file was left")
  }

  @Test func withoutAnAdapterTheBaseTensorsHaveGradients() throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("ffn-only")
    let result = try Program.run([
      "trace", "--model", folder.path + "/model", "--batch", folder.path + "/batch.safetensors", "--out", folder.path + "/out.safetensors",
      "--backward",
    ])
    #expect(result.code == 0, "\(result.error)")
    let trace = try Safetensors(path: folder.path + "/out.safetensors")
    let model = try Safetensors(path: folder.path + "/model/model.safetensors")
    #expect(
      Set(trace.entries.map(\.name)) == Set(["logits", "loss", "aux_loss"] + model.entries.map { "grad." + $0.name }))
    #expect(trace.entries.allSatisfy { $0.elementType == .float32 })
  }

  @Test(arguments: ["llama", "qwen2"]) func aGGUFFileIsAModelToo(kind: String) throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("topk").path
    let fixtures = URL(filePath: #filePath).deletingLastPathComponent().path + "/../../Fixtures/gguf/"
    let result = try Program.run([
      "trace", "--model", fixtures + kind + ".gguf", "--batch", fixtures + "batch.safetensors", "--out", folder + "/out.safetensors",
      "--dtype", "float64",
    ])
    #expect(result.code == 0, "\(result.error)")
    let (trace, expected) = (try Safetensors(path: folder + "/out.safetensors"), try Safetensors(path: fixtures + kind + ".safetensors"))
    #expect(trace.entry("logits")?.shape == expected.entry("logits")?.shape)
    let wrong = try Program.run([
      "trace", "--model", fixtures + "blocks.gguf", "--batch", fixtures + "batch.safetensors", "--out", folder + "/out.safetensors",
    ])
    #expect(wrong.code == 3 && wrong.error.contains("general.architecture"), "\(wrong.error)")
  }

  /// Where there is a GPU the run goes through, and that is what is seen.
  @Test func withoutAGPUTheMessageListsWhatWasLookedFor() throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("topk")
    let result = try Program.run(arguments(folder) + ["--backend", "cuda"])
    if result.code == 0 { return print("a GPU is there: its absence was not tried") }
    #expect(result.code == 5)
    #expect(result.error.hasPrefix("error: --backend cuda: ") && result.error.contains("looked for"), "\(result.error)")
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/out.safetensors"))
  }

  @Test(arguments: [
    (["--steps", "0"], "--steps is 0"), (["--backend", "tpu"], "tpu"), (["--evaluation", "fast"], "fast"),
    (["--dtype", "float16"], "float16"), (["model.*"], "--activations"), (["--router-loss", "none"], "--router-loss"),
    (["--mystery"], "--mystery"), (["--activations", "no.such.path"], "no.such.path"), (["--lr", "nan"], "--lr"),
    (["--backward", "--activations", "no.such.path"], "no.such.path"),
    (["--threads", "0"], "--threads is 0"),
  ])
  func whatTheCommandLineDoesNotHaveIsAUsageError(_ extra: [String], _ part: String) throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("topk")
    let result = try Program.run(arguments(folder) + extra)
    #expect(result.code == 2)
    #expect(result.error.contains(part), "\(result.error)")
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/out.safetensors"))
  }

  @Test(arguments: [
    ("model/config.json", "\"rope_theta\": 10000.0", "\"rope_scaling\": {\"rope_type\": \"mrope\"}", "rope_scaling.rope_type", "mrope"),
    ("model/config.json", "\"rope_theta\": 10000.0", "\"head_dim\": 7", "head_dim", "width 7"),
    ("model/config.json", "\"silu\"", "\"gelu\"", "hidden_act", "gelu"),
    ("model/config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 6", "num_attention_heads", "6 heads"),
    ("model/config.json", "\"vocab_size\": 61", "\"vocab_size\": 62", "model.embed_tokens.weight", "[62, 16]"),
    ("adapter/adapter_config.json", "\"top_k\": 2", "\"top_k\": 5", "top_k", "found 5"),
    ("adapter/adapter_config.json", "\"top_k\": 2", "\"use_dora\": true", "use_dora", "true"),
    ("adapter/adapter_config.json", "\"top_k\": 2", "\"mystery\": 3", "mystery", "found 3"),
    ("adapter/adapter_config.json", "\"MIXLORA\"", "\"MOLA\"", "peft_type", "MOLA"),
    ("adapter/adapter_config.json", "\"num_experts\": 4", "\"num_experts\": 3", "moe_gate", "[4, 16]"),
    ("adapter/adapter_config.json", "\"num_experts\": 4", "\"num_experts\": 6", "moe_gate", "[6, 16]"),
  ])
  func aFeatureOrFileThatIsNotUnderstoodIsNamed(_ file: String, _ old: String, _ new: String, _ key: String, _ found: String) throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("topk")
    try scratch.edit(folder.appending(path: file), old, new)
    let result = try Program.run(arguments(folder))
    #expect(result.code == 3, "\(result.error)")
    #expect(result.error.contains(key) && result.error.contains(found), "\(result.error)")
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/out.safetensors"))
  }

  @Test(arguments: ["batch.safetensors", "model/model.safetensors", "adapter/new.safetensors"])
  func whatATraceReadsIsNeverWrittenOver(_ name: String) throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("topk")
    let before = try? Data(contentsOf: folder.appending(path: name))
    var arguments = arguments(folder)
    arguments[arguments.count - 1] = folder.path + "/" + name
    let result = try Program.run(arguments)
    #expect(result.code == 2 && result.error.contains("--out"), "\(result.error)")
    #expect((try? Data(contentsOf: folder.appending(path: name))) == before)
  }

  /// The order in which a fault is looked for: forward, then backward; `layers.10` sorts before `layers.2`, and gradients first.
  @Test func theMetadataListsTheTensorsInTheOrderOfTheRun() throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("topk")
    #expect(try Program.run(arguments(folder, "--backward", "--activations")).code == 0)
    let trace = try Safetensors(path: folder.path + "/out.safetensors")
    let listed =
      try JSON(parsing: try #require(trace.metadata["order"]?.stringValue), file: "order").arrayValue?.compactMap(\.stringValue) ?? []
    #expect(Set(listed) == Set(trace.entries.map(\.name)) && listed.count == trace.entries.count)
    let milestones = [
      "model.embed_tokens.output", "model.layers.0.self_attn.q_proj.output", "model.layers.0.output", "model.layers.1.output", "logits",
      "loss",
      "grad.model.layers.1.output", "grad.model.layers.0.self_attn.q_proj.output", "grad.model.embed_tokens.output",
    ].map { listed.firstIndex(of: $0) ?? -1 }
    #expect(milestones.first == 0 && milestones == milestones.sorted(), "\(milestones)")
  }

  @Test func aMissingFolderIsNamed() throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("topk")
    let result = try Program.run([
      "trace", "--model", folder.path + "/nowhere", "--batch", folder.path + "/batch.safetensors", "--out",
      folder.path + "/out.safetensors",
    ])
    #expect(result.code == 3)
    #expect(result.error.contains("/nowhere: found nothing of this name"))
  }

  /// The first in the order of the run, which is what a search for a fault needs; `layers.10` sorts before `layers.2`.
  @Test func theFirstActivationThatIsNotFiniteIsNamed() throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("ffn-only")
    try spoil(folder, "model.layers.1.self_attn.v_proj.weight")
    let result = try Program.run(arguments(folder, "--activations", "--backward"))
    #expect(result.code == 4)
    #expect(result.error.contains("tensor model.layers.1.self_attn.v_proj.output"), "\(result.error)")
  }

  @Test func aResultThatIsNotFiniteIsWrittenAndNamed() throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("ffn-only")
    try spoil(folder, "model.norm.weight")
    let result = try Program.run(arguments(folder))
    #expect(result.code == 4)
    #expect(result.error.contains("logits"), "\(result.error)")
    #expect(FileManager.default.fileExists(atPath: folder.path + "/out.safetensors"))
  }

  /// Puts +∞ into the first element of a weight.
  private func spoil(_ folder: URL, _ weight: String) throws {
    let model = try Safetensors(path: folder.path + "/model/model.safetensors")
    let contents = try model.entries.map { entry in (entry, try model.withBytes(of: entry.name) { [UInt8]($0) }) }
    try SafetensorsWriter.write(to: folder.path + "/model/model.safetensors", entries: model.entries) { entry, emit in
      var bytes = contents.first { $0.0 == entry }!.1
      if entry.name == weight { bytes.replaceSubrange(0..<4, with: [0, 0, 0x80, 0x7f]) }  // +∞
      try bytes.withUnsafeBytes { try emit($0) }
    }
  }

  @Test(arguments: [
    ("mask with two runs", "attention_mask", "two runs"), ("mask value", "attention_mask", "found 2"),
    ("id too large", "input_ids", "found 61"),
    ("label too small", "labels", "found -1"), ("nothing counts", "labels", "no column that counts"), ("shape", "labels", "[1, 5]"),
    ("dtype", "input_ids", "I32"), ("empty", "input_ids", "[0, 4]"), ("surplus", "position_ids", "nothing reads"),
  ])
  func aBatchThatBreaksItsContractIsAnError(_ what: String, _ tensor: String, _ found: String) throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("topk")
    var tensors: [(name: String, type: ElementType, shape: [Int], values: [Int64])] = [
      ("input_ids", .int64, [1, 4], [3, 4, 5, 6]), ("attention_mask", .int64, [1, 4], [1, 1, 1, 1]),
      ("labels", .int64, [1, 4], [3, 4, 5, 6]),
    ]
    switch what {
    case "mask with two runs": tensors[1].values = [1, 0, 1, 1]
    case "mask value": tensors[1].values = [1, 2, 1, 1]
    case "id too large": tensors[0].values[3] = 61
    case "label too small": tensors[2].values[3] = -1
    case "nothing counts": tensors[2].values = [3, -100, -100, -100]
    case "shape": (tensors[2].shape, tensors[2].values) = ([1, 5], [3, 4, 5, 6, 7])
    case "dtype": tensors[0].type = .int32
    case "empty": for i in tensors.indices { (tensors[i].shape, tensors[i].values) = ([0, 4], []) }
    default: tensors.append(("position_ids", .int64, [1, 4], [0, 1, 2, 3]))
    }
    try SafetensorsWriter.write(
      to: folder.path + "/batch.safetensors", entries: tensors.map { try TensorEntry(name: $0.name, elementType: $0.type, shape: $0.shape) }
    ) { entry, emit in
      let tensor = tensors.first { $0.name == entry.name }!
      if tensor.type == .int32 {
        try tensor.values.map { Int32($0) }.withUnsafeBytes { try emit($0) }
      } else {
        try tensor.values.withUnsafeBytes { try emit($0) }
      }
    }
    let result = try Program.run(arguments(folder))
    #expect(result.code == 3, "\(result.error)")
    #expect(result.error.contains("\"\(tensor)\"") && result.error.contains(found), "\(result.error)")
  }

  @Test func gradientsWithoutLabelsAreAUsageError() throws {
    let scratch = try Scratch()
    let folder = try scratch.golden("topk")
    try SafetensorsWriter.write(
      to: folder.path + "/batch.safetensors", entries: [TensorEntry(name: "input_ids", elementType: .int64, shape: [1, 1])]
    ) { _, emit in try [Int64(3)].withUnsafeBytes { try emit($0) } }
    #expect(try Program.run(arguments(folder, "--backward")).code == 2)
    #expect(try Program.run(arguments(folder, "--steps", "1")).code == 2)
    #expect(try Program.run(arguments(folder)).code == 0)
    #expect(try Set(Safetensors(path: folder.path + "/out.safetensors").entries.map(\.name)) == ["logits", "router_logits"])
  }
}

extension TraceCommandTests {
  private func golden(_ name: String) -> String {
    URL(filePath: #filePath).deletingLastPathComponent().path + "/../../Fixtures/golden/" + name
  }

  /// What `--list` prints is what a run writes: the same names in the same order.
  @Test func theListNamesEveryPointThatATraceWrites() throws {
    let folder = golden("topk")
    let scratch = try Scratch()
    let out = scratch.url.path + "/out.safetensors"
    let listed = try Program.run(["trace", "--model", folder + "/model", "--adapter", folder + "/adapter", "--list", "--json"])
    #expect(listed.code == 0, "\(listed.error)")
    let lines = try listed.output.split(separator: "\n").map { try JSON(parsing: Array($0.utf8), file: "line") }
    let traced = try Program.run([
      "trace", "--model", folder + "/model", "--adapter", folder + "/adapter", "--batch", folder + "/batch.safetensors", "--out", out,
      "--backward", "--activations", "--steps", "1",
    ])
    #expect(traced.code == 0, "\(traced.error)")
    let file = try Safetensors(path: out)
    let optimizer = ["exp_avg.", "exp_avg_sq.", "after."]
    let written = file.entries.map(\.name).filter { name in
      name.hasPrefix("model.") || name.hasPrefix("grad.model.") || name.contains("lm_head") || optimizer.contains { name.hasPrefix($0) }
    }
    #expect(Set(lines.compactMap { $0["name"]?.stringValue }) == Set(written))
    #expect(lines.count == written.count && written.count > 100)
    for line in lines {
      let name = try #require(line["name"]?.stringValue)
      let shape = try #require(line["shape"]?.arrayValue)
      #expect(line["equation"]?.stringValue?.isEmpty == false, "\(name)")
      let phase = name.hasPrefix("grad.") ? "backward" : optimizer.contains { name.hasPrefix($0) } ? "optimizer" : "forward"
      #expect(line["phase"]?.stringValue == phase)
      #expect(
        OperationKind(rawValue: line["operation"]?.stringValue ?? "") != nil && line["inputs"]?.arrayValue?.isEmpty == false, "\(name)")
      let sizes = try #require(file.entry(name)?.shape)
      #expect(sizes.count == shape.count && zip(sizes, shape).allSatisfy { $1.intValue == nil || $1.intValue == $0 }, "\(name)")
    }
    for name in [
      "self_attn.q_proj.rotated.output", "self_attn.o_proj.input", "residual.output", "mlp.moe_gate.probabilities.output",
      "mlp.moe_gate.weights.output", "mlp.moe_gate.choice", "mlp.down_proj.input", "mlp.experts.1.tokens",
    ] { #expect(written.contains("model.layers.0." + name), "\(name)") }
    for kind in optimizer { #expect(written.contains(kind + "mixlora.layers.1.mlp.moe_gate.weight")) }
    #expect(written.contains("lm_head.output") && written.contains("grad.lm_head.output"))
  }

  @Test func aListRunsNothingAndATraceNeedsItsBatch() throws {
    let folder = golden("topk")
    let scratch = try Scratch()
    let mixed = try Program.run(["trace", "--model", folder + "/model", "--list", "--out", scratch.url.path + "/x"])
    #expect(mixed.code == 2 && mixed.error.contains("--list"), "\(mixed.error)")
    let none = try Program.run(["trace", "--model", folder + "/model", "--out", scratch.url.path + "/x"])
    #expect(none.code == 2 && none.error.contains("--batch"), "\(none.error)")
  }

  /// Rows of the base alone beside an adapter that brings weights in the place of the base's.
  @Test(arguments: [("saved", "llama"), ("pissa", "llama"), ("bias-all", "llama-bias"), ("bias-lora-only", "qwen2"), ("olora", "qwen2")])
  func theBaseAloneIsRefusedBesideAnAdapterThatReplacesPartsOfIt(_ name: String, _ model: String) throws {
    let fixtures = golden("../")
    let scratch = try Scratch()
    func trace(_ numbers: [Int64]) throws -> Program.Result {
      let batch = scratch.url.path + "/batch.safetensors"
      let ids: [Int64] = [1, 2, 3, 4, 5, 6]
      let entries = try [("input_ids", [2, 3]), ("labels", [2, 3]), ("adapter", [2])].map {
        try TensorEntry(name: $0.0, elementType: .int64, shape: $0.1)
      }
      try SafetensorsWriter.write(to: batch, entries: entries) { entry, emit in
        try (entry.name == "adapter" ? numbers : ids).withUnsafeBytes { try emit($0) }
      }
      return try Program.run([
        "trace", "--model", fixtures + "peers/models/" + model, "--adapter", fixtures + "adapters/" + name, "--batch", batch,
        "--out", scratch.url.path + "/out.safetensors",
      ])
    }
    let refused = try trace([0, -1])
    #expect(refused.code == 3 && refused.error.contains("-1") && refused.error.contains("\"adapter\""), "\(refused.error)")
    let taken = try trace([0, 0])
    #expect(taken.code == 0, "\(taken.error)")
  }

  /// Several adapters through the command: the contract's names, in batch order, and an adapter number that does not exist.
  @Test func severalAdaptersHaveTheNamesOfTheContract() throws {
    let peers = golden("../peers/")
    let scratch = try Scratch()
    let out = scratch.url.path + "/out.safetensors"
    let adapters = (0..<3).flatMap { ["--adapter", peers + "plural/llama-plural/adapters/\($0)"] }
    let arguments = [
      "trace", "--model", peers + "models/llama", "--batch", peers + "plural/llama-plural/batch.safetensors", "--out", out, "--backward",
      "--steps", "3", "--lr", "0.01", "--dtype", "float64",
    ]
    let result = try Program.run(arguments + adapters)
    #expect(result.code == 0, "\(result.error)")
    let (file, expected) = (try Safetensors(path: out), try Safetensors(path: peers + "plural/llama-plural/expected64.safetensors"))
    #expect(Set(file.entries.map(\.name)) == Set(expected.entries.map(\.name)))
    for entry in file.entries { #expect(entry.shape == expected.entry(entry.name)?.shape, "\(entry.name)") }
    let few = try Program.run(arguments + adapters.prefix(4))
    #expect(few.code == 3 && few.error.contains("adapter") && few.error.contains("2"), "\(few.error)")
  }
}
