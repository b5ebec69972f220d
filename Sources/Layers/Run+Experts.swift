import Tensors

extension Run {
  /// The hook points of rows ordered by expert: expert e's rows pass as `<module>.experts.<e>.<name>`.
  ///
  /// Without a listener nothing is formed; a replaced block of rows is written back into `x` (M,W).
  func hookExperts(_ x: inout Tensor<B>, _ module: String, _ name: String, _ routing: Routing<B>) {
    guard isObserved else { return }
    for e in 0..<routing.experts {
      let expert = "\(module).experts.\(e)"
      guard listens(to: "\(expert).\(name)") else { continue }
      guard let offsets = attempt({ try backend.download(routing.offsets) }) else { return }
      let range = Int(offsets[e])..<Int(offsets[e + 1])
      var rows = backend.copy(x.rows(range))  // (rows of e, W)
      let before = rows
      hook(&rows, expert, name)
      if rows.storage !== before.storage { backend.copy(rows, into: &x, rows: range, columns: nil) }
    }
  }

  /// sum += x, where nil counts as zero.
  func accumulate(_ x: Tensor<B>, into sum: inout Tensor<B>?) {
    guard var total = sum.take() else {
      sum = x
      return
    }
    backend.add(1, x, into: &total)
    sum = total
  }
}
