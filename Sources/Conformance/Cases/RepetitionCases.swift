import Tensors

extension CaseList {
  /// The same work again gives the same bits and allocates nothing.
  mutating func addRepetition() {
    addRepetition(NormAndProduct())
    addRepetition(RotatedAttention())
    addRepetition(RoutedExperts())
    addRepetition(HeadAndUpdate())
  }

  private mutating func addRepetition(_ program: some PrecisionProgram) {
    add("repetition", program.name, [.contiguous]) { trial in
      let inputs = trial.source
      var first: [[B.Scalar]] = []
      for (name, tensor) in try program.results(on: &trial) {
        let values = try trial.backend.download(tensor)
        trial.expect(!values.isEmpty && values.allSatisfy(\.isFinite), "\(name) is empty or not finite")
        first.append(values)
      }
      for repetition in 1...2 {
        let start = trial.backend.counters
        trial.source = inputs
        let again = try program.results(on: &trial)
        let misses = (trial.backend.counters - start).poolMisses
        trial.expect(misses == 0, "repetition \(repetition) allocated \(misses) buffers")
        trial.expect(again.count == first.count, "repetition \(repetition) has \(again.count) results, expected \(first.count)")
        for result in 0..<min(again.count, first.count) {
          let values = try trial.backend.download(again[result].tensor)
          trial.expect(values == first[result], "\(again[result].name) has other bits in repetition \(repetition)")
        }
      }
    }
  }
}
