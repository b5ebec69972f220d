import CPUBackend
import Checkpoints
import Foundation
import Samples
import Tensors
import TestModels
import Training

/// A golden model with a tokenizer and some lines to learn, in a folder of its own that goes with it.
final class TrainingCase {
  let folder: String
  var model: String { folder + "/model" }
  var data: String { folder + "/data.jsonl" }
  var out: String { folder + "/out" }

  init() throws {
    folder = FileManager.default.temporaryDirectory.appending(path: "mixlora-" + UUID().uuidString).path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try FileManager.default.copyItem(atPath: Golden.folder("topk") + "/model", toPath: model)
    try AtomicFile.write(TalkingModel.json(), to: model + "/tokenizer.json")
    let names = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "more"]
    let lines = names.indices.map { #"{"prompt":"What is \#(names[$0])?","completion":" \#(names[($0 + 4) % names.count])."}"# }
    try AtomicFile.write(lines.joined(separator: "\n") + "\n", to: data)
  }

  deinit { try? FileManager.default.removeItem(atPath: folder) }

  /// Eleven samples, four a step in two parts, a checkpoint every third of nine steps.
  var recipe: TrainingRecipe {
    var recipe = TrainingRecipe.mixlora(rank: 2, experts: 3)
    (recipe.model, recipe.data, recipe.steps) = (model, data, 9)
    (recipe.batch, recipe.accumulate, recipe.saveEvery) = (4, 2, 3)
    (recipe.learningRate, recipe.schedule, recipe.warmup) = (0.01, .cosine, 0.2)
    return recipe
  }

  /// A run that is told to stop after so many steps.
  @discardableResult
  func run(_ recipe: TrainingRecipe, out: String? = nil, resumes: Bool = false, stopAfter limit: Int? = nil) throws -> TrainingRun<CPUFloat>
  {
    let run = try TrainingRun(recipe, out: out, resumes: resumes, on: CPUFloat(threads: 1))
    try run.run(shouldStop: { run.step == limit })
    return run
  }

  func names(_ folder: String) -> Set<String> { Set(Folder.names(in: folder)) }

  func bytes(_ path: String) throws -> Data { try Data(contentsOf: URL(filePath: path)) }
}
