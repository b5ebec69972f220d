import Generation
import Testing

@Suite struct SamplerTests {
  private let logits: [Double] = [0.3, 2, -1, 1.5, 2.5, -4, 0.3, 1]

  /// p_i ∝ e^(z_i/T) over what is allowed, by the definition: tokens sorted, cut after K, then where the sum first reaches P.
  private func probabilities(_ sampler: Sampler) -> [Double] {
    let powers = logits.map { z in  // e^(z/T) by its series, which shares nothing with the sampler
      var (sum, term) = (1.0, 1.0)
      for n in 1..<200 { term *= z / sampler.temperature / Double(n); sum += term }
      return sum
    }
    let order = logits.indices.sorted { logits[$0] != logits[$1] ? logits[$0] > logits[$1] : $0 < $1 }
    var allowed = Array(order.prefix(sampler.topK == 0 ? 8 : sampler.topK))
    let all = allowed.reduce(0) { $0 + powers[$1] }
    var (mass, count) = (0.0, 0)
    while mass < sampler.topP * all * (1 - 1e-12), count < allowed.count { mass += powers[allowed[count]]; count += 1 }
    allowed = Array(allowed.prefix(count))
    let total = allowed.reduce(0) { $0 + powers[$1] }
    return logits.indices.map { allowed.contains($0) ? powers[$0] / total : 0 }
  }

  /// χ² = Σ (n_i − N p_i)² / (N p_i) exceeds 35 in one of 90 000 tries with 7 degrees of freedom, in fewer with less.
  @Test(arguments: [
    Sampler(temperature: 1), Sampler(temperature: 0.6), Sampler(temperature: 3, seed: 5), Sampler(temperature: 1, topK: 3),
    Sampler(temperature: 1, topP: 0.8), Sampler(temperature: 1, topP: 0.05), Sampler(temperature: 2, topK: 5, topP: 0.9, seed: 9),
    Sampler(temperature: 1, topK: 100, topP: 0.999),
  ])
  func tokensAreDrawnAsOftenAsTheFormulaSays(_ sampler: Sampler) throws {
    let (p, draws) = (probabilities(sampler), 40_000)
    var counts = [Int](repeating: 0, count: 8)
    for number in 0..<draws { counts[Int(try #require(sampler.token(logits, number: number)))] += 1 }
    var chiSquare = 0.0
    for (count, p) in zip(counts, p) {
      if p == 0 {
        #expect(count == 0)
      } else {
        chiSquare += (Double(count) - Double(draws) * p) * (Double(count) - Double(draws) * p) / (Double(draws) * p)
      }
    }
    #expect(chiSquare < 35, "\(counts), expected \(p.map { $0 * Double(draws) })")
  }

  @Test func theSeedDecides() throws {
    func tokens(_ seed: UInt64) -> [Int32?] { (0..<50).map { Sampler(temperature: 1, seed: seed).token(logits, number: $0) } }
    #expect(tokens(1) == tokens(1))
    #expect(tokens(1) != tokens(2))
    #expect(Set(tokens(1)).count > 2)
  }

  @Test func withoutTemperatureTheLikeliestIsTakenAndOfEqualsTheFirst() {
    #expect(Sampler().token(logits, number: 0) == 4)
    #expect(Sampler().token([1, 3, 3, 2] as [Float], number: 9) == 1)
    #expect(Sampler(temperature: 1, topK: 1).token([1, 3, 3, 2] as [Float], number: 9) == 1)
    #expect(Sampler(temperature: 1e-300).token(logits, number: 0) == 4)
  }

  @Test(arguments: [Double.nan, .infinity, -.infinity])
  func whatIsNotFiniteGivesNoToken(_ bad: Double) {
    for sampler in [Sampler(), Sampler(temperature: 1), Sampler(temperature: 1, topK: 2, topP: 0.5)] {
      for place in [0, 3, 7] {
        var z = logits
        z[place] = bad
        #expect(sampler.token(z, number: 0) == nil)
        #expect(sampler.token(z.map { Float($0) }, number: 0) == nil)
      }
      #expect(sampler.token([Float](), number: 0) == nil)
    }
  }
}
