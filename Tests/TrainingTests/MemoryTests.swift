import CPUBackend
import Checkpoints
import Decoders
import Layers
import Samples
import Tensors
import TestModels
import Testing

@testable import Training

/// What a run needs of memory, by arithmetic and by the pool's count of bytes.
@Suite struct MemoryTests {
  /// A backend of two threads whose pool has not grown yet.
  private func run(_ recipes: [TrainingRecipe], note: (SettingsText) -> Void = { _ in }) throws -> (TrainingRun<CPUFloat>, CPUFloat) {
    let backend = CPUFloat(threads: 2)
    return (try TrainingRun(recipes, on: backend, note: note), backend)
  }

  /// Bytes that the steps added to the pool, and by arithmetic; and how many of these are bounds: what an operation needs for itself, and
  /// zeros of new B's, which a small arena holds from the first on and for which a large one has free blocks given back.
  private func added(_ recipes: [TrainingRecipe]) throws -> (counted: Int, planned: Int, bounds: Int) {
    let (run, backend) = try run(recipes)
    let before = backend.counters.poolBytes
    let planned = try run.memory?.added ?? run.memoryPlan(held: HeldMemory(bytes: before)).added
    let rows = run.learners.flatMap { $0.samples + $0.validation }.map(\.ids.count).max() ?? 0
    let scratch = backend.scratchBytes(rows: rows, run.decoder.blockMatrices + [run.decoder.head.weight])
    let zeros = (run.parameterCount - run.writtenParameterCount) * MemoryLayout<Float>.size
    try run.run()
    return (backend.counters.poolBytes - before, planned, scratch + zeros)
  }

  private func recipes(_ place: TrainingCase) throws -> [(String, [TrainingRecipe])] {
    var lora = place.recipe
    (lora.method, lora.dropout, lora.optimizer, lora.accumulate) = (.lora, 0, .sgd, 1)
    var definition = place.recipe
    definition.evaluation = .perExpert
    var (one, other) = (place.recipe, lora)
    (one.name, other.name, other.steps) = ("one", "other", 4)
    var full = place.recipe
    (full.method, full.accumulate) = (.full, 4)
    var large = place.recipe  // gradients that take memory as backward comes to them
    (large.rank, large.experts, large.steps) = (256, 8, 2)
    var validated = place.recipe  // in batches of whole steps, which are larger than their parts
    (validated.batch, validated.accumulate, validated.validation, validated.evaluateEvery) = (8, 8, place.recipe.data, 2)
    var few = place.recipe  // moments that a step forms in whole precision
    (few.optimizer, few.rank, few.steps) = (.adamw8bit, 64, 2)
    return [
      ("8 bits", [few]), ("large", [large]), ("validated", [validated]), ("mixture", [place.recipe]), ("plain", [lora]),
      ("definition", [definition]),
      ("two adapters", [one, other]),
      ("full", [full]),
    ]
  }

  /// A mixture's row count is known, so arithmetic and count agree but for what only has a bound.
  @Test func arithmeticIsWhatThePoolCounts() throws {
    let place = try TrainingCase()
    for (name, recipes) in try recipes(place) {
      for recomputes in [false, true] {
        let (counted, planned, bounds) = try added(
          recipes.map {
            var recipe = $0
            recipe.recomputes = recomputes
            return recipe
          })
        let name = "\(name), recomputed \(recomputes): \(counted) counted, \(planned) planned"
        #expect(counted <= planned && planned <= counted + bounds, "\(name), \(bounds) of them bounds")
      }
    }
  }

  /// Every budget between what all and what no recomputed blocks need is kept by as few blocks as possible, and changes no bit.
  @Test func aBudgetIsKeptWithTheSameBits() throws {
    let place = try TrainingCase()
    let whole = try run([place.recipe]).0
    try whole.run()
    var chosen: Set<Int> = []
    let (all, none) = (try plan(place) { $0.recomputes = true }, try plan(place) { _ in })
    #expect(all.total < none.total && all.recomputedBlocks == all.blocks && none.recomputedBlocks == 0)
    for budget in [all.total, (all.total + none.total) / 2, none.total - 1, none.total] {
      var recipe = place.recipe
      recipe.memory = budget
      var notes: [String] = []
      let (limited, backend) = try run([recipe]) { notes.append($0.description) }
      let plan = try #require(limited.memory)
      chosen.insert(plan.recomputedBlocks)
      if plan.recomputedBlocks > 0 {
        #expect(try plan.held + limited.addedBytes(recomputing: plan.recomputedBlocks - 1) > budget, "one block fewer would do")
      }
      #expect(notes.contains { $0.hasPrefix("memory \(budget) bytes: \(plan.recomputedBlocks) of \(plan.blocks) blocks") }, "\(notes)")
      try limited.run()
      #expect(backend.counters.poolBytes <= budget, "\(budget): \(backend.counters.poolBytes), \(plan)")
      #expect(
        limited.metrics.map(\.loss) == whole.metrics.map(\.loss) && limited.metrics.map(\.gradientNorm) == whole.metrics.map(\.gradientNorm)
      )
      for (ours, theirs) in zip(limited.decoder.parameters, whole.decoder.parameters) {
        #expect(try backend.download(ours.value) == CPUFloat(threads: 1).download(theirs.value), "\(ours.name)")
      }
    }
    #expect(chosen.contains(0) && chosen.count > 1, "\(chosen)")
  }

  private func plan(_ place: TrainingCase, _ change: (inout TrainingRecipe) -> Void) throws -> MemoryPlan {
    var recipe = place.recipe
    change(&recipe)
    let (run, backend) = try run([recipe])
    return try run.memoryPlan(held: HeldMemory(bytes: backend.counters.poolBytes))
  }

  @Test func aBudgetThatCannotBeKeptIsRefused() throws {
    let place = try TrainingCase()
    let least = try plan(place) { $0.recomputes = true }.total
    var recipe = place.recipe
    recipe.memory = least - 1
    let error = try #require(#expect(throws: SettingsError.self) { try run([recipe]) })
    let words = try #require(error.description.firstMatch(of: #/memory is (\d+) bytes, expected at least (\d+): with all/#))
    #expect(Int(words.1) == least - 1 && Int(words.2) == least, "\(error)")
    // What is counted needs no margin, and that of a process is not of the size of what it holds.
    recipe.memory = least
    let open = try run([recipe]).0
    for (held, spread) in [(40_000_000, 0), (40_000_000, 2_000_000), (28_000_000_000, 2_000_000)] {
      let text = try #require(
        #expect(throws: SettingsError.self) { try open.memoryPlan(held: HeldMemory(bytes: held, spread: spread)) }
      ).description
      let needed = try held + open.addedBytes(recomputing: open.decoder.blocks.count)
      #expect(text.contains("expected at least \(needed)\(spread == 0 ? "" : ", and \(needed + spread) to be safe"): with all"), "\(text)")
    }
    recipe.memory = Int(words.2)
    #expect(try #require(run([recipe]).0.memory).total <= recipe.memory ?? 0, "what is named is enough")
    (recipe.memory, recipe.recomputes) = (least, true)
    let both = try #require(#expect(throws: SettingsError.self) { try run([recipe]) })
    #expect(both.description.contains("recompute takes all"), "\(both)")
    (recipe.memory, recipe.recomputes) = (0, false)
    #expect(throws: SettingsError.self) { try run([recipe]) }
  }

  /// It is one for all adapters, and a run goes on under any: no bit depends on it.
  @Test func aBudgetIsASetting() throws {
    let place = try TrainingCase()
    var recipe = place.recipe
    recipe.memory = try plan(place) { _ in }.total - 1
    try place.run(recipe, out: place.out, stopAfter: 4)
    var other = place.recipe
    other.recomputes = true
    try place.run(other, out: place.out, resumes: true)
    try place.run(place.recipe, out: place.folder + "/whole")
    let file = "/adapter_model.safetensors"
    #expect(try place.bytes(place.out + file) == place.bytes(place.folder + "/whole" + file))
    var one = place.recipe
    other = place.recipe
    (one.name, other.name, other.memory) = ("one", "other", 1 << 40)
    let pair = try #require(#expect(throws: SettingsError.self) { try run([one, other]) })
    #expect(pair.description.contains("memory is \(1 << 40) for 'other'"), "\(pair)")
  }
}
