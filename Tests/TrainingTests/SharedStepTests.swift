import CPUBackend
import Checkpoints
import Collectives
import Foundation
import Testing
import Training

/// Ranks that share out the micro-batches of a step. `RanksTests` sees the same of processes, over MPI.
@Suite struct SharedStepTests {
  /// A mixture and a plain LoRA whose parts differ in number and in length, with dropout, and clipped.
  private func recipes(_ place: TrainingCase) throws -> [TrainingRecipe] {
    var first = place.recipe
    (first.name, first.dropout, first.batch, first.accumulate, first.clip, first.steps) = ("mixed", 0.2, 8, 8, 0.05, 6)
    (first.validation, first.evaluateEvery) = (place.data, 3)
    var second = TrainingRecipe.lora(rank: 3)
    (second.name, second.model, second.data, second.steps) = ("plain", place.model, place.data, 5)
    (second.batch, second.accumulate, second.dropout, second.clip, second.saveEvery) = (6, 3, 0.1, 0.02, 3)
    return [first, second]
  }

  private struct Outcome: Equatable, Sendable {
    var values: [[Float]]
    var lines: [[Metrics]]
  }

  private static func train(_ recipes: [TrainingRecipe], out: String, resumes: Bool = false, _ ranks: any Collective) throws -> Outcome {
    let backend = CPUFloat(threads: 1)
    let run = try TrainingRun(recipes, out: out, resumes: resumes, ranks: ranks, on: backend)
    try run.run(clock: { 0 })
    return Outcome(values: try run.decoder.parameters.map { try backend.download($0.value) }, lines: run.learners.map(\.metrics))
  }

  @Test func anyNumberOfRanksMakesTheBitsOfOneAndTheFirstAloneWrites() throws {
    let place = try TrainingCase()
    let recipes = try recipes(place)
    let out = place.folder + "/alone"
    let alone = try Self.train(recipes, out: out, Solo())
    #expect(alone.lines.map(\.count) == [6, 5] && alone.lines.joined().allSatisfy { $0.gradientNorm > 0.05 }, "every step is clipped")
    for size in 2...4 {
      let outs = (0..<size).map { "\(place.folder)/\(size)-\($0)" }
      let outcomes = ThreadRanks.run(size) { try Self.train(recipes, out: outs[$0.rank], $0) }
      #expect(outcomes.count == size)
      for (rank, outcome) in outcomes.enumerated() {
        #expect(try outcome.get() == alone, "rank \(rank) of \(size)")
        #expect(MappedFile.isFolder(outs[rank]) == (rank == 0), "rank \(rank) of \(size)")
      }
      for file in ["mixed/adapter_model.safetensors", "plain/adapter_model.safetensors", "mixed/metrics.jsonl"] {
        #expect(try place.bytes("\(outs[0])/\(file)") == place.bytes("\(out)/\(file)"), "\(size) ranks: \(file)")
      }
    }
  }

  /// Every rank makes the same moments of the same gradients, and gets those of a checkpoint from the first.
  @Test func momentsIn8BitsHaveTheBitsOfOneRankToo() throws {
    let place = try TrainingCase()
    var recipe = inFourParts(place)
    (recipe.optimizer, recipe.rank) = (.adamw8bit, 64)
    let recipes = [recipe]
    let alone = try Self.train(recipes, out: place.folder + "/alone", Solo())
    for size in 1...3 {
      let out = "\(place.folder)/\(size)"
      let stopped = ThreadRanks.run(size) { ranks in
        let run = try TrainingRun(recipes, out: out, ranks: ranks, on: CPUFloat(threads: 1))
        try run.run(clock: { 0 }, shouldStop: { run.step == 4 })
        return run.step
      }
      for step in stopped { #expect(try step.get() == 4) }
      let outcomes = ThreadRanks.run(size) { try Self.train(recipes, out: out, resumes: true, $0) }
      #expect(outcomes.count == size)
      for (rank, outcome) in outcomes.enumerated() {
        let found = try outcome.get()
        #expect(found.values == alone.values, "rank \(rank) of \(size)")
      }
      for file in ["adapter_model.safetensors", "checkpoint-9/optimizer.safetensors", "metrics.jsonl"] {
        #expect(try place.bytes("\(out)/\(file)") == place.bytes("\(place.folder)/alone/\(file)"), "\(size) ranks: \(file)")
      }
    }
  }

  private func inFourParts(_ place: TrainingCase) -> TrainingRecipe {
    var recipe = place.recipe
    recipe.accumulate = 4
    return recipe
  }

  /// What the ranks' runs throw, and the steps that the first one saved.
  private func errors(
    _ place: TrainingCase, _ size: Int, _ body: @escaping @Sendable (TrainingRecipe, any Collective) throws -> Void
  ) -> [String] {
    let recipe = inFourParts(place)
    return ThreadRanks.run(size) { try body(recipe, $0) }.map { outcome in
      if case .failure(let error) = outcome { return "\(error)" }
      return ""
    }
  }

  /// As memory, a library or a processor would that makes other bits on one machine.
  @Test func aRankWhoseParametersDifferIsNamedBeforeAnythingIsSavedOfIt() throws {
    let place = try TrainingCase()
    let out = place.out
    let found = errors(place, 3) { recipe, ranks in
      let backend = CPUFloat(threads: 1)
      let run = try TrainingRun([recipe], out: out, ranks: ranks, on: backend)
      try run.run(onStep: { line in
        guard line.step == 4, ranks.rank == 1 else { return }
        var values = try backend.download(run.decoder.parameters[0].value)
        values[0] = values[0].nextUp
        run.decoder.parameters[0].value = backend.upload(values, run.decoder.parameters[0].shape)
      })
    }
    for error in found { #expect(error.contains("Behind step 6 rank 1 has other parameters than rank 0"), "\(found)") }
    #expect(place.names(out).contains("checkpoint-3") && !place.names(out).contains("checkpoint-6"))
  }

  @Test func aRankThatReadsOtherSamplesIsNamed() throws {
    let place = try TrainingCase()
    let other = place.folder + "/other.jsonl"
    try AtomicFile.write(String(decoding: place.bytes(place.data), as: UTF8.self).replacing("four", with: "for"), to: other)
    let found = errors(place, 2) { recipe, ranks in
      var recipe = recipe
      if ranks.rank == 1 { recipe.data = other }
      try TrainingRun([recipe], ranks: ranks, on: CPUFloat(threads: 1)).run()
    }
    for error in found { #expect(error.contains("data holds other samples than rank 0 has."), "\(found)") }
  }

  @Test func aRankThatHasAnotherSettingIsNamedWithIt() throws {
    let place = try TrainingCase()
    let found = errors(place, 3) { recipe, ranks in
      var recipe = recipe
      if ranks.rank == 2 { (recipe.clip, recipe.evaluateEvery) = (0.5, 3) }
      try TrainingRun([recipe], ranks: ranks, on: CPUFloat(threads: 1)).run()
    }
    for error in found {
      #expect(error.contains("rank 2 has other settings or reads other samples than rank 0:\nclip is 0.5, but rank 0 has "), "\(found)")
      #expect(error.contains("\nevaluate-every is 3, but rank 0 has none.\nGive every rank"), "\(found)")
    }
  }

  @Test func whenOneRankIsToldToStopAllStopAfterTheSameStepAndKnowWhich() throws {
    let place = try TrainingCase()
    let recipe = inFourParts(place)
    let out = place.out
    let stops = ThreadRanks.run(3) { ranks in
      let run = try TrainingRun([recipe], out: out, ranks: ranks, on: CPUFloat(threads: 1))
      try run.run(shouldStop: { ranks.rank == 2 && run.step == 4 })
      return [run.step, run.stoppingRank ?? -1]
    }
    for stop in stops { #expect(try stop.get() == [4, 2]) }
    #expect(place.names(out).contains("checkpoint-4"))
  }
}
