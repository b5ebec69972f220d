import CPUBackend
import Conformance
import Layers
import TestModels
import Testing
import Traces

/// The engine against PyTorch. Limits: float64 has 1e-16 of rounding in some 1e3 dependent operations. Those of float32 are four times the
/// worst error that was measured on x86-64 with OpenBLAS 0.3.21, since another order of sums rounds otherwise; all in `Agreement`'s norm:
///
///                   first pass    after three steps
///     topk            1.3e-6          1.7e-7
///     ffn-only        1.1e-6          2.5e-7
///     left-padding    1.4e-6          7.2e-7
@Suite struct GoldenTests {
  @Test(arguments: Golden.cases, [1, 2])
  func float64EqualsPyTorchInEveryTensor(_ name: String, threads: Int) throws {
    let trace = try Golden.trace(name, on: CPUDouble(threads: threads, isPoisoned: true))
    let expected = try Golden.expected(name)
    let now = Agreement(
      of: trace.tensors.only("logits", "loss", "aux_loss", "router_logits", "grad."),
      with: expected.only("logits", "loss", "aux_loss", "router_logits", "grad."))
    #expect(now.holds(to: 1e-12), "\(now)")
    let after = Agreement(of: trace.tensors.only("after.", "loss_curve"), with: expected.only("after.", "loss_curve"))
    #expect(after.holds(to: 1e-9), "\(after)")
    #expect(trace.tensors.count == expected.count)
  }

  @Test(arguments: Golden.cases)
  func float32EqualsPyTorchToSinglePrecision(_ name: String) throws {
    let trace = try Golden.trace(name, on: CPUFloat(threads: 2, isPoisoned: true))
    let expected = try Golden.expected(name)
    let now = Agreement(
      of: trace.tensors.only("logits", "loss", "aux_loss", "router_logits", "grad."),
      with: expected.only("logits", "loss", "aux_loss", "router_logits", "grad."))
    #expect(now.holds(to: 5.6e-6), "\(now)")
    let after = Agreement(of: trace.tensors.only("after.", "loss_curve"), with: expected.only("after.", "loss_curve"))
    #expect(after.holds(to: 2.9e-6), "\(after)")
  }

  /// The model over plain loops alone: where this fails and the conformance suite does not, a layer relies on what no operation promises.
  @Test(arguments: ExpertEvaluation.allCases)
  func theDefinitionsOfTheOperationsAreEnough(_ evaluation: ExpertEvaluation) throws {
    let trace = try Golden.trace("topk", evaluation: evaluation, on: NaiveBackend<Double>())
    let expected = try Golden.expected("topk")
    let now = Agreement(of: trace.tensors.firstPass(), with: expected.firstPass())
    #expect(now.holds(to: 1e-12), "\(now)")
    let after = Agreement(of: trace.tensors.steps(), with: expected.steps())
    #expect(after.holds(to: 1e-9), "\(after)")
  }

  @Test func aNumberThatIsOffOrNaNOrMissingDisagrees() throws {
    let expected = try Golden.expected("topk")
    #expect(Agreement(of: expected, with: expected).holds(to: 0))
    var changed = expected
    var values = changed[3].values
    values[0] += 1e-9 * Agreement.scale(values)
    changed[3] = .init(name: changed[3].name, shape: changed[3].shape, values: values)
    #expect(!Agreement(of: changed, with: expected).holds(to: 1e-12))
    values[0] = .nan
    changed[3] = .init(name: changed[3].name, shape: changed[3].shape, values: values)
    #expect(!Agreement(of: changed, with: expected).holds(to: 1e300))
    #expect(!Agreement(of: Array(expected.dropLast()), with: expected).holds(to: 1e300))
    #expect(!Agreement(of: [Trace<Double>.NamedTensor](), with: [Trace<Double>.NamedTensor]()).holds(to: 1))
  }
}

extension Agreement {
  static func scale(_ values: [Double]) -> Double { values.reduce(0) { max($0, abs($1)) } }
}
