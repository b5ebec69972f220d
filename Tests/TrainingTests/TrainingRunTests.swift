import CPUBackend
import Checkpoints
import Conformance
import Decoders
import Foundation
import Samples
import Tensors
import Testing
import Training

/// A run in process: what it leaves, how it goes on, what it refuses.
@Suite struct TrainingRunTests {
  @Test func aRunWithoutAFolderLearnsWritesNothingAndSavesWhenAsked() throws {
    let place = try TrainingCase()
    let before = place.names(place.folder)
    let run = try TrainingRun(place.recipe, on: CPUFloat(threads: 1))
    var steps: [Int] = []
    var time = 0.0
    try run.run(
      onStep: { steps.append($0.step) },
      clock: {
        time += 1
        return time
      })
    #expect(steps == Array(1...9) && run.step == 9 && run.metrics.map(\.step) == steps)
    #expect(run.metrics[8].loss < run.metrics[0].loss)
    #expect(run.metrics.allSatisfy { $0.tokensPerSecond == Double($0.tokens) }, "a step lasts one tick of the clock that was handed in")
    #expect(place.names(place.folder) == before)
    try run.save(to: place.out)
    #expect(
      place.names(place.out) == [
        "adapter_config.json", "adapter_model.bin", "adapter_model.safetensors", "experts.svg", "loss.svg", "metrics.jsonl",
      ])
    #expect(try MetricsFile.lines(place.out + "/metrics.jsonl", upTo: 9) == run.metrics)
    // A run with a folder leaves the same.
    let other = place.folder + "/other"
    try place.run(place.recipe, out: other)
    #expect(try place.bytes(other + "/adapter_model.safetensors") == place.bytes(place.out + "/adapter_model.safetensors"))
    #expect(place.names(other) == place.names(place.out).union(["checkpoint-6", "checkpoint-9"]))
  }

  @Test(arguments: [TrainingRecipe.OptimizerName.adamw, .sgd])
  func aRunThatWasStoppedGoesOnToTheSameBits(_ optimizer: TrainingRecipe.OptimizerName) throws {
    let place = try TrainingCase()
    var recipe = place.recipe
    (recipe.optimizer, recipe.momentum) = (optimizer, 0.9)
    let (whole, broken) = (place.folder + "/whole", place.folder + "/broken")
    try place.run(recipe, out: whole)
    let first = try place.run(recipe, out: broken, stopAfter: 5)
    #expect(first.step == 5 && place.names(broken) == ["checkpoint-3", "checkpoint-5", "metrics.jsonl"])
    let second = try TrainingRun(recipe, out: broken, resumes: true, on: CPUFloat(threads: 1))
    var steps: [Int] = []
    try second.run { steps.append($0.step) }
    #expect(steps == [6, 7, 8, 9] && second.metrics.count == 9)
    for file in ["adapter_model.safetensors", "checkpoint-9/optimizer.safetensors", "checkpoint-9/state.json", "loss.svg", "experts.svg"] {
      #expect(try place.bytes("\(whole)/\(file)") == place.bytes("\(broken)/\(file)"), "\(file)")
    }
    // Without a folder the same object goes on.
    let free = try place.run(recipe, stopAfter: 5)
    #expect(free.step == 5)
    try free.run()
    try free.save(to: place.folder + "/free")
    #expect(try place.bytes(place.folder + "/free/adapter_model.safetensors") == place.bytes(whole + "/adapter_model.safetensors"))
  }

  @Test func aRunGoesOnUnderItsOwnSettingsAndDataAlone() throws {
    let place = try TrainingCase()
    try place.run(place.recipe, out: place.out, stopAfter: 3)
    var changed = place.recipe
    (changed.rank, changed.encoding.length) = (4, 100)
    let error = try #require(throws: SettingsError.self) { try place.run(changed, out: place.out, resumes: true) }
    #expect(error.description.contains("rank is 4, but the run was started with 2.\nlength is 100, "))
    #expect(error.text.text { "--" + $0.name }.contains("--rank is 4"))
    #expect(throws: SettingsError.self) { try place.run(place.recipe, out: place.out) }
    try AtomicFile.write(#"{"prompt":"a","completion":"b"}"#, to: place.data)
    let samples = try #require(throws: SettingsError.self) { try place.run(place.recipe, out: place.out, resumes: true) }
    #expect(samples.description.contains("data has 1 samples, but the run was started with 11"))
  }

  @Test func theBestStepByValidationIsKeptBesideTheNewest() throws {
    let place = try TrainingCase()
    var recipe = place.recipe
    // Answers that the training makes unlikelier: the earliest step is the best.
    let held = place.folder + "/held-out.jsonl"
    try AtomicFile.write(#"{"prompt":"What is one?","completion":"ZQZQZQ"}"# + "\n", to: held)
    (recipe.validation, recipe.evaluateEvery, recipe.keep) = (held, 2, 1)
    (recipe.learningRate, recipe.schedule, recipe.warmup) = (0.05, .constant, 0)
    let run = try place.run(recipe, out: place.out)
    let validated = run.metrics.filter { $0.validationLoss != nil }
    #expect(validated.map(\.step) == [2, 4, 6, 8, 9])
    let best = try #require(validated.min { ($0.validationLoss ?? 0) < ($1.validationLoss ?? 0) }).step
    #expect(TrainingCheckpoint.steps(in: place.out) == Set([best, 9]).sorted())
    #expect(best != 9, "the last step is the best, so nothing was shown")
  }

  @Test func aStepThatIsNotFiniteEndsTheRunWithTheStepsBeforeItSaved() throws {
    let place = try TrainingCase()
    var recipe = place.recipe
    (recipe.learningRate, recipe.schedule, recipe.warmup, recipe.weightDecay) = (1e18, .constant, 0, 0)
    let run = try TrainingRun(recipe, out: place.out, on: CPUFloat(threads: 1))
    let error = try #require(throws: NonFiniteValue.self) { try run.run() }
    #expect(error.place == "step \(run.step + 1)" && error.description.contains("the first tensor with a value that is not finite"))
    #expect(run.step >= 1 && run.metrics.count == run.step)
    #expect(TrainingCheckpoint.steps(in: place.out).last == run.step)
  }

  @Test func valuesThatOverflowInTheUpdateAreNotSaved() throws {
    let place = try TrainingCase()
    var recipe = place.recipe
    (recipe.steps, recipe.learningRate, recipe.schedule, recipe.warmup, recipe.weightDecay) = (1, 1e38, .constant, 0, 1e5)
    let error = try #require(throws: NonFiniteValue.self) { try place.run(recipe, out: place.out) }
    #expect(error.description.contains("nothing is saved"))
    #expect(place.names(place.out) == ["metrics.jsonl"])
  }

  @Test func aStepCopiesNothingAndMovesOnlyTheNumbersOfItsLineToTheHost() throws {
    let place = try TrainingCase()
    let backend = CPUFloat(threads: 1)
    var recipe = place.recipe
    recipe.accumulate = 1
    let run = try TrainingRun(recipe, on: backend)
    try run.run(shouldStop: { run.step == 3 })
    let before = backend.counters
    try run.run()
    let spent = backend.counters - before
    #expect(spent.sharedCopies == 0)
    // Six steps: loss, balance loss and norm, and the rows of each layer's three experts.
    #expect(spent.bytesToHost == 6 * MemoryLayout<Float>.size * (3 + 3 * run.decoder.configuration.layers))
  }

  /// SmolLM2's shape in layers, branches, labels and tokens; only the widths are small, on which no number of operations depends.
  @Test func aStepOfThirtyLayersWaitsOnceAndCallsFewOperations() throws {
    let place = try TrainingCase()
    let maker = CPUFloat(threads: 1)
    var configuration = try DecoderConfiguration(contentsOf: place.model + "/config.json")
    let deep = try JSON(contentsOf: place.model + "/config.json").replacing("num_hidden_layers", with: 30)
    configuration = try DecoderConfiguration(deep, file: "config.json")
    let files = try ModelFolder.Files(of: place.model)
    let base = try Decoder(configuration, weights: RandomWeights(seed: 1, deviation: 0.05, on: maker), trainsBase: true, on: maker)
    try ModelFolder.write(base, beside: files, to: place.model, on: maker)
    try AtomicFile.write(deep.serialized(), to: place.model + "/config.json")
    let text = String(repeating: "abcdefgh", count: 32)  // 256 tokens and the end
    try AtomicFile.write((0..<8).map { _ in #"{"text":"\#(text)"}"# }.joined(separator: "\n"), to: place.data)
    var recipe = TrainingRecipe.mixlora(rank: 2, experts: 8)
    (recipe.model, recipe.data, recipe.steps, recipe.batch, recipe.dropout) = (place.model, place.data, 3, 2, 0.05)
    let backend = CPUFloat(threads: 1)
    let run = try TrainingRun(recipe, on: backend)
    try run.run(shouldStop: { run.step == 2 })
    let before = backend.counters
    try run.run()
    let spent = backend.counters - before
    #expect(run.metrics.last?.tokens == 514 && run.decoder.configuration.layers == 30)
    #expect(spent.waits == 1 && spent.poolMisses == 0 && spent.sharedCopies == 0)
    #expect(spent.operations <= 3700, "\(spent.operations) operations")
  }

  @Test func whatAUserMayWantToKnowIsSaid() throws {
    let place = try TrainingCase()
    var recipe = place.recipe
    recipe.encoding.length = 16
    recipe.validation = place.data
    var notes: [String] = []
    let run = try TrainingRun(recipe, on: CPUFloat(threads: 1)) { notes.append($0.text { "--" + $0.name }) }
    #expect(notes.filter { $0.contains("of 11 samples of \(place.data) have more than --length 16 tokens") }.count == 1, "\(notes)")
    #expect(run.learners[0].cutSamples > 0 && run.samples.count + run.learners[0].droppedSamples == 11)
    #expect(run.samples.allSatisfy { $0.ids.count <= 16 } && run.samples.contains { $0.ids.count == 16 && $0.cutTokens > 0 })
  }
}

extension JSON {
  /// The object with another value under a key.
  fileprivate func replacing(_ key: String, with value: JSON) -> JSON {
    var object = objectValue ?? JSON.Object()
    object[key] = value
    return .object(object)
  }
}
