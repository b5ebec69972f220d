import Checkpoints
import Collectives
import Samples
import Tensors

// What several ranks owe one another before, between and after the steps; for one alone all of it is nothing.
extension TrainingRun {
  /// Refuses ranks that would have nothing to do in any step.
  static func requireWork(for ranks: any Collective, _ recipes: [TrainingRecipe]) throws {
    guard let most = recipes.indices.max(by: { recipes[$0].accumulate < recipes[$1].accumulate }) else { return }
    guard ranks.size <= recipes[most].accumulate else {
      let text: SettingsText =
        "\(setting: "accumulate") is \(recipes[most].accumulate), but \(ranks.size) ranks share out a step's parts; expected at least \(ranks.size)."
      throw SettingsError(text.about(recipe: most))
    }
  }

  /// Refuses ranks that read other data or settings than the first: no error and no figure would tell.
  func requireSameSettings() throws {
    guard ranks.size > 1 else { return }
    let found = try ranks.texts(Self.settings(of: learners).serialized())
    guard let other = found.indices.first(where: { found[$0] != found[0] }) else { return }
    let (own, first) = (try JSON(parsing: found[other], file: "rank \(other)"), try JSON(parsing: found[0], file: "rank 0"))
    throw SettingsError(
      SettingsText(
        ["rank \(other) has other settings or reads other samples than rank 0:"] + Self.differences(own, first, than: "rank 0 has")
          + ["Give every rank the same command, and every machine the same files."], separator: "\n"))
  }

  /// Gives all ranks the values of the first one and, where it goes on with a run, its moments.
  func takeValuesOfTheFirst(_ optimizers: inout [(any Optimizer<B>)?], withMoments: Bool) throws {
    guard ranks.size > 1 else { return }
    for part in decoder.trained {
      var values = try backend.download(part.arena.values)
      try ranks.broadcast(&values)
      if ranks.rank > 0 { backend.copy(backend.upload(values, part.arena.shape), into: &part.arena.values) }
    }
    guard withMoments else { return }
    for i in optimizers.indices {
      guard let moments = optimizers[i]?.moments else { continue }
      var byName: [String: Tensor<B>] = [:]
      for moment in moments {
        var values = try backend.download(moment.value)
        try ranks.broadcast(&values)
        byName[moment.name] = backend.upload(values, moment.value.shape)
      }
      guard ranks.rank > 0 else { continue }
      try optimizers[i]?.restore { name, _, _ in
        guard let value = byName[name] else { trap("no moment \(name)") }
        return value
      }
    }
  }

  /// Refuses to go on where ranks have drifted apart, before anything is written of it.
  func requireSameParameters() throws {
    guard ranks.size > 1 else { return }
    var digest = Digest()
    for part in decoder.trained { try backend.download(part.arena.values).withUnsafeBytes { digest.add($0) } }
    let digests = try ranks.texts(digest.text)
    guard let other = digests.indices.first(where: { digests[$0] != digests[0] }) else { return }
    throw CollectiveError(
      "Behind step \(step) rank \(other) has other parameters than rank 0: a machine, a library or memory that fails. --resume goes on from the last checkpoint."
    )
  }
}
