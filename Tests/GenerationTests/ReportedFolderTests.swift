import CPUBackend
import Checkpoints
import Generation
import TestModels
import Testing

/// Folders of `Fixtures/reports`, which people had and no version before could read, against what transformers generates from them.
@Suite struct ReportedFolderTests {
  private func ids(_ folder: String) throws -> [Int32] {
    let model = try LoadedModel(Fixture.path("reports/" + folder), on: CPUFloat(threads: 1))
    var settings = GenerationSettings()
    settings.tokens = 4
    return try model.generate(["the"], settings)[0].ids
  }

  @Test func aTiedHeadThatIsKeptUnderItsOwnNameIsTheEmbeddingToo() throws {
    #expect(try ids("tied-head-kept-under-lm-head") == [229, 13, 13, 13])
  }

  @Test func theTotalSizeOfAnIndexIsNoReasonToRefuseItsShards() throws {
    #expect(try ids("index-total-size-of-a-pruned-vocabulary") == [124, 124, 124, 124])
  }
}
