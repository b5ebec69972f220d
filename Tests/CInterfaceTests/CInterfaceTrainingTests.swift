import CMixLoRA
import Foundation
import MixLoRA
import TestModels
import Testing

@testable import CInterface

extension CInterfaceTests {
  /// Training, comparisons and files through the functions for C.
  @Suite struct Work {
    @Test func aTrainingRunHasTheLossesAndTheAdapterOfTheLibrarys() throws {
      let scratch = try Scratch()
      let (model, data) = try scratch.demo()
      var recipe = TrainingRecipe.mixlora(rank: 2, experts: 3)
      (recipe.learningRate, recipe.batch, recipe.threads, recipe.dropout) = (1e-3, 4, 1, 0.1)
      let expected = try TrainingRun(recipe, model: model, data: data, steps: 2)
      try expected.run()
      try expected.save(to: scratch.path + "/expected")

      let settings: JSON = [
        "model": JSON(model), "data": JSON(data), "steps": 2, "rank": 2, "alpha": 4, "experts": 3, "lr": 1e-3, "batch": 4, "threads": 1,
        "dropout": 0.1,
      ]
      let run = try Handle { mixlora_train(settings.serialized(), $0) }
      #expect(try run.json["steps"] == 2 && run.json["settings"] == expected.recipe.json)
      for line in expected.metrics {
        let found = try Handle { mixlora_train_step(run.number, $0) }.json
        #expect(found["loss"]?.doubleValue == line.loss && found["grad_norm"]?.doubleValue == line.gradientNorm)
        #expect(found["expert_load"]?.arrayValue?.count == 4)
      }
      #expect(message { mixlora_train_step(run.number, $0) } == "found a run whose 2 steps are all made; expected steps that are left")
      _ = try Handle { mixlora_train_save(run.number, scratch.path + "/found", $0) }
      let adapters = try ["expected", "found"].map {
        try Data(contentsOf: URL(filePath: "\(scratch.path)/\($0)/adapter_model.safetensors"))
      }
      #expect(adapters[0] == adapters[1] && !adapters[0].isEmpty)

      let again = settings.with("adapter", JSON(scratch.path + "/found"))
      #expect(try Handle { mixlora_train(again.serialized(), $0) }.json["steps"] == 2, "its own settings are what it has")
      for (key, value, words) in [
        ("rank", 3, "rank is 3, but the adapter"), ("top_k", 3, "top_k is 3"), ("rslora", true, "rslora is true"),
      ]
        as [(String, JSON, String)]
      {
        let text = message { mixlora_train(again.with(key, value).serialized(), $0) }
        #expect(text.contains(words) && text.contains("which holds"), "\(text)")
      }
    }

    @Test func aRunThatTrainsIsAModelToTrace() throws {
      let scratch = try Scratch()
      let (model, data) = try scratch.demo()
      let settings: JSON = ["model": JSON(model), "data": JSON(data), "steps": 2, "rank": 2, "experts": 3, "threads": 1]
      let run = try Handle { mixlora_train(settings.serialized(), $0) }
      let ids = try Handle { mixlora_tokens(run.number, "swap: r t ->", $0) }
      #expect(try ids.json.arrayValue?.map(\.intValue) == Tokenizer(model: model).encode("swap: r t ->").map { Int($0) })
      #expect(try Handle { mixlora_points(run.number, $0) }.json.arrayValue?.isEmpty == false)
      let untouched = try Handle { mixlora_train(settings.serialized(), $0) }
      for _ in 0..<2 {
        let (line, other) = try (
          Handle { mixlora_train_step(run.number, $0) }.json, Handle { mixlora_train_step(untouched.number, $0) }.json
        )
        #expect(line["loss"] == other["loss"] && line["grad_norm"] == other["grad_norm"] && line["loss"]?.doubleValue != nil)
        // A trace's steps are taken back and its gradients are gone, so the run goes on as if there had been none.
        for request in ["\"steps\":1", "\"backward\":true"] {
          let settings = "{\"batch\":\"\(Golden.folder("topk"))/batch.safetensors\",\(request)}"
          #expect(message { mixlora_trace(run.number, settings, $0) } == "no error")
        }
      }
    }

    /// A setting that `train` has and that nobody reads here would be refused as unknown.
    @Test func everySettingOfARecipeIsRead() throws {
      var recipe = TrainingRecipe()
      (recipe.model, recipe.data, recipe.rank, recipe.task, recipe.activation) = ("m", "d", 7, "boolq", .geluTanh)
      (recipe.encoding.system, recipe.encoding.tooLong, recipe.encoding.addsEndToken) = ("s", .drop, false)
      (recipe.seed, recipe.targets, recipe.steps, recipe.isRankStabilized) = (5, [.q, .up], 9, true)
      var object: JSON = [:]
      for member in recipe.json.objectValue?.members ?? [] {
        let isList = member.key == "targets"
        object = object.with(
          pythonName(member.key),
          isList ? .array((member.value.stringValue ?? "").split(separator: ",").map { JSON(String($0)) }) : member.value)
      }
      let settings = try Settings(object.serialized())
      let read = try TrainingRecipe(settings)
      _ = try settings.threads()
      try settings.finish()
      #expect(read == recipe)
      #expect(read.json == recipe.json)
    }

    @Test func aComparisonIsTheLibrarys() throws {
      let golden = Golden.folder("topk")
      let settings: JSON = [
        "model": JSON(golden + "/model"), "adapters": [JSON(golden + "/adapter")], "batch": JSON(golden + "/batch.safetensors"),
        "candidate": JSON(golden + "/expected64.safetensors"), "lr": 0.01, "threads": 1,
      ]
      var comparison = Comparison(model: golden + "/model", adapters: [golden + "/adapter"], batch: golden + "/batch.safetensors")
      comparison.request.learningRate = 0.01
      let expected = try comparison.report(of: golden + "/expected64.safetensors", on: CPUDouble(threads: 1))
      let answer = try Handle { mixlora_compare(settings.serialized(), $0) }.json
      #expect(answer["matches"] == true && expected.matches)
      #expect(answer["text"]?.stringValue == expected.text(color: false))
      #expect(answer["html"]?.stringValue == expected.html)
      #expect(answer["lines"]?.arrayValue?.map { $0.serialized() } == expected.jsonLines)
      let files: JSON = ["candidate": JSON(golden + "/expected64.safetensors"), "reference": JSON(golden + "/expected64.safetensors")]
      #expect(try Handle { mixlora_compare(files.serialized(), $0) }.json["matches"] == true)
      // The wrong learning rate is seen.
      #expect(try Handle { mixlora_compare(settings.with("lr", 0.02).serialized(), $0) }.json["matches"] == false)
    }

    @Test func filesAreThoseOfTheRepository() throws {
      let sources = Fixture.path("../Sources/CEmbedded/")
      for (name, path) in [("capture/torch", "Capture/mixlora_capture_torch.py"), ("base/config.json", "Demo/config.json")] {
        let file = try ArrayHandle { mixlora_file(name, $0, $1) }
        let isTheFile = file.bytes == Array(try Data(contentsOf: URL(filePath: sources + path))) && file.shape == [file.bytes.count]
        #expect(isTheFile, "\(name)")
      }
    }

    /// The library has the demo's questions in their short form and hands out records.
    @Test func questionsAreTheRecordsOfTheirLines() throws {
      for name in ["train", "test"] {
        let file = try ArrayHandle { mixlora_file("data/\(name).jsonl", $0, $1) }
        let short = try String(contentsOfFile: Fixture.path("../Sources/CEmbedded/Demo/\(name).txt"), encoding: .utf8).split(
          separator: "\n")
        let records = file.bytes.split(separator: UInt8(ascii: "\n"))
        #expect(records.count == short.count && short.count > 100 && file.bytes.last == UInt8(ascii: "\n"))
        for (record, line) in zip(records, short) {
          let json = try JSON(parsing: Array(record), file: name)
          let (task, prompt, completion) = (json["task"]?.stringValue, json["prompt"]?.stringValue, json["completion"]?.stringValue)
          #expect(task.map { line.hasPrefix($0 + ":") } == true && prompt?.hasSuffix(" ->") == true && completion?.hasPrefix(" ") == true)
          #expect((prompt ?? "") + (completion ?? "") == line)
        }
      }
    }

    /// Calls from several threads: those on one model wait for each other and give the same bits.
    @Test func callsFromSeveralThreadsGiveTheSameBits() throws {
      let golden = Golden.folder("topk")
      let open = "{\"model\":\"\(golden)/model\",\"adapters\":[\"\(golden)/adapter\"],\"threads\":2}"
      let model = mixlora_open(open, nil)
      defer { mixlora_release(model) }
      let (settings, results) = ("{\"batch\":\"\(golden)/batch.safetensors\",\"steps\":1}", Results())
      DispatchQueue.concurrentPerform(iterations: 8) { n in
        let trace = mixlora_trace(model, settings, nil)
        var array = mixlora_array()
        let logits = mixlora_tensor(trace, "logits", &array, nil)
        mixlora_release(trace)
        if logits != 0 { results.add(Array(UnsafeRawBufferPointer(start: array.data, count: 4 * 3 * 9 * 61))) }
        mixlora_release(logits)
      }
      let (count, kinds) = (results.all.count, Set(results.all).count)
      #expect(count == 8 && kinds == 1)
    }
  }
}

/// What several threads found.
private final class Results: @unchecked Sendable {
  private let lock = NSLock()
  private(set) var all: [[UInt8]] = []

  func add(_ bytes: [UInt8]) { lock.withLock { all.append(bytes) } }
}
