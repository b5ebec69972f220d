import Evaluation
import Testing

@Suite struct WilsonIntervalTests {
  /// 8 of 10: the worked example that textbooks give, [0.490, 0.943].
  @Test func theIntervalIsWilsons() {
    let interval = WilsonInterval(right: 8, of: 10)
    #expect(abs(interval.low - 0.4901625) < 1e-6 && abs(interval.high - 0.9433178) < 1e-6, "\(interval)")
    #expect(WilsonInterval(right: 0, of: 5).low < 1e-12)
    #expect(WilsonInterval(right: 0, of: 0).low == 0 && WilsonInterval(right: 0, of: 0).high == 1)
  }
}
