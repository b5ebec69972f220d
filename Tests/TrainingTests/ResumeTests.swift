import CPUBackend
import Checkpoints
import Decoders
import Foundation
import Samples
import Tensors
import TestModels
import Testing
import Training

/// What a run that goes on meets: damaged checkpoints, other runs in its folder, another base model.
@Suite struct ResumeTests {
  /// Something that may happen to a checkpoint, and the file that is named then.
  struct Damage: CustomStringConvertible, Sendable {
    let description: String
    let file: String
    let change: @Sendable (Data) -> Data?
  }

  private static func flipped(_ data: Data, at place: Int) -> Data {
    var data = data
    data[place] ^= 1
    return data
  }

  private static func edited(_ data: Data, _ old: String, _ new: String) -> Data {
    Data(String(decoding: data, as: UTF8.self).replacing(old, with: new).utf8)
  }

  static let damages = [
    Damage(description: "cut off", file: "adapter_model.safetensors") { $0.dropLast(20) },
    Damage(description: "longer", file: "adapter_model.safetensors") { $0 + Data([0]) },
    Damage(description: "empty", file: "optimizer.safetensors") { _ in Data() },
    Damage(description: "one bit of the last number", file: "adapter_model.safetensors") { flipped($0, at: $0.count - 1) },
    Damage(description: "one bit of a moment", file: "optimizer.safetensors") { flipped($0, at: $0.count - 7) },
    Damage(description: "one bit of the settings", file: "adapter_config.json") { flipped($0, at: $0.count / 2) },
    Damage(description: "missing moments", file: "optimizer.safetensors") { _ in nil },
    Damage(description: "missing adapter", file: "adapter_model.safetensors") { _ in nil },
    Damage(description: "missing state", file: "state.json") { _ in nil },
    Damage(description: "half a state", file: "state.json") { $0.prefix($0.count / 2) },
    Damage(description: "another number in the state", file: "state.json") { edited($0, "\"batch\": 4", "\"batch\": 8") },
    Damage(description: "another digest in the state", file: "state.json") { edited($0, "\"bytes\": 1", "\"bytes\": 2") },
  ]

  private func damage(_ damage: Damage, _ checkpoint: String) throws {
    let url = URL(filePath: "\(checkpoint)/\(damage.file)")
    let before = try Data(contentsOf: url)
    if let after = damage.change(before) {
      #expect(after != before)
      try after.write(to: url)
    } else {
      try FileManager.default.removeItem(at: url)
    }
  }

  /// Goes on to the end and gives what was said.
  private func resume(_ place: TrainingCase, _ recipe: TrainingRecipe? = nil) throws -> (notes: [String], first: Int) {
    var notes: [String] = []
    let run = try TrainingRun(recipe ?? place.recipe, out: place.out, resumes: true, on: CPUFloat(threads: 1)) {
      notes.append($0.description)
    }
    var steps: [Int] = []
    try run.run { steps.append($0.step) }
    return (notes, steps.first ?? 0)
  }

  private func expectSame(_ place: TrainingCase, as whole: String) throws {
    for file in ["adapter_model.safetensors", "checkpoint-9/optimizer.safetensors", "checkpoint-9/state.json", "loss.svg"] {
      #expect(try place.bytes("\(place.out)/\(file)") == place.bytes("\(whole)/\(file)"), "\(file)")
    }
  }

  @Test(arguments: damages) func aDamagedCheckpointIsNamedAndPassedOver(_ damage: Damage) throws {
    let place = try TrainingCase()
    let whole = place.folder + "/whole"
    var recipe = place.recipe
    (recipe.keep, recipe.saveEvery) = (1, 3)
    try place.run(recipe, out: whole)
    recipe.keep = 2
    try place.run(recipe, out: place.out, stopAfter: 6)
    try self.damage(damage, place.out + "/checkpoint-6")
    recipe.keep = 1  // of what is left the whole one must stay
    let (notes, first) = try resume(place, recipe)
    #expect(first == 4 && notes.count == 1, "\(notes)")
    #expect(notes.first?.contains("checkpoint-6 is damaged") == true && notes.first?.contains(damage.file) == true, "\(notes)")
    try expectSame(place, as: whole)
    #expect(place.names(place.out) == place.names(whole))
  }

  /// The damaged checkpoint's step comes again: it is then whole.
  @Test func aDamagedCheckpointIsWrittenAgain() throws {
    let place = try TrainingCase()
    try place.run(place.recipe, out: place.out)
    let file = place.out + "/checkpoint-9/adapter_model.safetensors"
    let before = try place.bytes(file)
    try damage(Self.damages[0], place.out + "/checkpoint-9")
    #expect(try resume(place).first == 7)
    #expect(try place.bytes(file) == before)
    #expect(try resume(place).notes.isEmpty, "the finished run is whole")
  }

  /// Checkpoints of an earlier version say neither what their files held nor of which base model they are.
  @Test func aCheckpointWithoutDigestsIsTakenIfItsTensorsCanBeOpened() throws {
    let place = try TrainingCase()
    let whole = place.folder + "/whole"
    try place.run(place.recipe, out: whole)
    try place.run(place.recipe, out: place.out, stopAfter: 6)
    for step in [3, 6] {
      let file = "\(place.out)/checkpoint-\(step)/state.json"
      var state = try #require(try JSON(contentsOf: file).objectValue)
      for key in ["files", "digest", "base"] { state[key] = nil }
      try AtomicFile.write(JSON.object(state).serialized(), to: file)
    }
    try damage(Self.damages[0], place.out + "/checkpoint-6")
    let (notes, first) = try resume(place)
    #expect(first == 4 && notes.count == 1 && notes[0].contains("checkpoint-6/adapter_model.safetensors"), "\(notes)")
    try expectSame(place, as: whole)
  }

  @Test func withoutAWholeCheckpointTheRunBeginsAnew() throws {
    let place = try TrainingCase()
    let whole = place.folder + "/whole"
    try place.run(place.recipe, out: whole)
    try place.run(place.recipe, out: place.out, stopAfter: 6)
    for step in [3, 6] { try damage(Self.damages[step], "\(place.out)/checkpoint-\(step)") }
    let (notes, first) = try resume(place)
    #expect(first == 1 && notes.count == 2 && notes.allSatisfy { $0.contains("begins anew") }, "\(notes)")
    try expectSame(place, as: whole)
    // With a result beside them they are somebody's finished run.
    for step in [6, 9] { try damage(Self.damages[0], "\(place.out)/checkpoint-\(step)") }
    #expect(throws: SettingsError.self) { try resume(place) }
  }

  @Test func theThreadsAreThoseOfTheNewestStateThatCanBeRead() throws {
    let place = try TrainingCase()
    var recipe = place.recipe
    recipe.threads = 1
    try place.run(recipe, out: place.out, stopAfter: 6)
    try damage(Self.damages[9], place.out + "/checkpoint-6")
    #expect(TrainingCheckpoint.threads(ofRunIn: place.out) == 1)
  }

  // MARK: Other runs

  @Test func aFolderIsOneRunsAtATime() throws {
    let place = try TrainingCase()
    let first = try TrainingRun(place.recipe, out: place.out, on: CPUFloat(threads: 1))
    try first.prepare()
    for resumes in [true, false] {
      let error = try #require(throws: CheckpointError.self) { try place.run(place.recipe, out: place.out, resumes: resumes) }
      #expect(error.file == place.out && error.found.contains("another run") && !error.isSystemFailure, "\(error)")
    }
    try first.run(shouldStop: { first.step == 4 })
    // A run that has ended lets go of its folder, though it may go on; not after somebody else has.
    try place.run(place.recipe, out: place.out, resumes: true, stopAfter: 5)
    let error = try #require(throws: CheckpointError.self) { try first.run() }
    #expect(error.found == "files of another run")
    #expect(try resume(place).first == 6)
  }

  @Test func aRunThatFindsAnothersFilesWhenItBeginsWritesNothing() throws {
    let place = try TrainingCase()
    let late = try TrainingRun(place.recipe, out: place.out, on: CPUFloat(threads: 1))
    try place.run(place.recipe, out: place.out, stopAfter: 2)
    let before = try place.bytes(place.out + "/metrics.jsonl")
    #expect(throws: CheckpointError.self) { try late.run() }
    #expect(try place.bytes(place.out + "/metrics.jsonl") == before)
  }

  // MARK: The base model

  @Test func anotherBaseModelIsNoticed() throws {
    let place = try TrainingCase()
    try place.run(place.recipe, out: place.out, stopAfter: 3)
    let (weights, settings) = (place.model + "/model.safetensors", place.model + "/config.json")
    let (oldWeights, oldSettings) = (try place.bytes(weights), try place.bytes(settings))
    // One bit of the last number of the file.
    try Self.flipped(oldWeights, at: oldWeights.count - 1).write(to: URL(filePath: weights))
    let error = try #require(throws: CheckpointError.self) { try resume(place) }
    guard case .tensor(let name) = error.place else { return #expect(Bool(false), "\(error)") }
    #expect(try Safetensors(path: weights).entries.contains { $0.name == name } && error.found == "other values" && !error.isSystemFailure)
    try oldWeights.write(to: URL(filePath: weights))
    let theta = try #require(try JSON(contentsOf: settings)["rms_norm_eps"]?.serialized())
    try Self.edited(oldSettings, "\"rms_norm_eps\": \(theta)", "\"rms_norm_eps\": 0.5").write(to: URL(filePath: settings))
    #expect(try #require(throws: CheckpointError.self) { try resume(place) }.place == .key("rms_norm_eps"))
    try oldSettings.write(to: URL(filePath: settings))
    #expect(try resume(place).first == 4)
  }

  @Test(arguments: ["gguf/llama.gguf", "gguf/qwen2.gguf", "golden/topk/model"])
  func aModelIsTheSameAsItselfAlone(_ name: String) throws {
    let model = try ModelFolder(Fixture.path(name))
    let identity = try model.identity()
    try model.requireSame(as: identity)
    try model.requireSame(as: JSON(parsing: identity.serialized(), file: "identity"))
    let other = try ModelFolder(Fixture.path(name == "gguf/llama.gguf" ? "records/model" : "gguf/llama.gguf"))
    #expect(throws: CheckpointError.self) { try other.requireSame(as: identity) }
    // Every tensor is looked at: its values, its shape and type, whether it is there.
    let tensors = try #require(identity["tensors"]?.objectValue)
    #expect(tensors.count > 5)
    for key in tensors.keys {
      for (change, found) in [
        ("F32 [1, 2] 0", nil), (nil, "a tensor"), (String((tensors[key]?.stringValue ?? "").dropLast()), "other values"),
      ] {
        var changed = tensors
        changed[key] = change.map { JSON($0) }
        let error = try #require(throws: CheckpointError.self) { try model.requireSame(as: ["tensors": .object(changed)]) }
        #expect(error.place == .tensor(key) && (found == nil || error.found == found), "\(error)")
      }
    }
    var more = tensors
    more["one.more"] = "F32 [1] 0"
    #expect(
      try #require(throws: CheckpointError.self) { try model.requireSame(as: ["tensors": .object(more)]) }.place == .tensor("one.more"))
  }
}
