import CPUBackend
import Conformance
import TestModels
import Testing

@Suite struct GradientTests {
  @Test(arguments: Golden.cases)
  func finiteDifferencesOfTheWholeModelGiveTheAdaptersGradient(_ name: String) throws {
    let backend = CPUDouble(threads: 1)
    let check = ModelGradientCheck(try Golden.decoder(name, on: backend), try Golden.batch(name).sequences, on: backend)
    try expectAll(check.run(directions: 8))
  }

  @Test func finiteDifferencesGiveTheGradientWithBiasesAndOddSizes() throws {
    let backend = CPUDouble(threads: 1)
    try expectAll(ModelGradientCheck(try SmallModel.decoder(on: backend), SmallModel.sequences, on: backend).run(directions: 8))
  }

  @Test func finiteDifferencesGiveTheGradientOfEveryBaseTensor() throws {
    let backend = CPUDouble(threads: 1)
    try expectAll(ModelGradientCheck(try SmallModel.baseDecoder(on: backend), SmallModel.sequences, on: backend).run(directions: 8))
    try expectAll(
      ModelGradientCheck(try Golden.decoder("topk", withAdapter: false, on: backend), try Golden.batch("topk").sequences, on: backend).run(
        directions: 8))
  }

  private func expectAll(_ results: [ModelGradientCheck<CPUDouble>.GroupResult]) throws {
    #expect(results.count > 5)
    for result in results {
      #expect(result.worst <= 1e-7, "\(result)")
      #expect(result.gradientNorm > 0, "\(result)")
    }
  }
}
