import Tensors

// Routing and the experts' products.
extension RoundingBackend {
  func softmax(_ logits: Tensor<RoundingBackend>) -> Tensor<RoundingBackend> {
    rounded(exact.softmax(read(logits)), logits.columnCount)
  }
  func choose(_ p: Tensor<RoundingBackend>, _ policy: RoutingPolicy) -> Indices<RoundingBackend> {
    outer(exact.choose(inner(p), policy))
  }
  func route(_ p: Tensor<RoundingBackend>, choice: Indices<RoundingBackend>, _ policy: RoutingPolicy) -> Routing<RoundingBackend> {
    let routing = exact.route(read(p), choice: inner(choice), policy)
    var weights = routing.weights
    if let mistaken = mistakenWeights(p, routing) { return outer(routing, weights: exact.upload(mistaken, weights.shape)) }
    if precision != nil {
      weights = exact.copy(weights)
      round(&weights, routing.slots)
    }
    return outer(routing, weights: weights)
  }
  func routerBackward(
    _ dw: Tensor<RoundingBackend>, _ p: Tensor<RoundingBackend>, _ routing: Routing<RoundingBackend>, balance: Tensor<RoundingBackend>
  ) -> Tensor<RoundingBackend> {
    var balance = balance
    if mutation == .balanceMissing { balance = zeros(balance.shape) }
    if mutation == .routerWeightGradientMissing {
      return outer(exact.routerBackward(exact.zeros(dw.shape), inner(p), inner(routing), balance: inner(balance)))
    }
    if mutation == .routerSumMissing, let all = try? exact.download(inner(p)), let b = try? exact.download(inner(balance)) {
      // dz = p ⊙ dp: the sum is left out; that of the weights' part cancels, so it is the balance loss's that shows.
      var dz = exact.routerBackward(inner(dw), inner(p), inner(routing), balance: inner(balance))
      let e = routing.experts
      let sums = all.indices.map { i in all[i] * (0..<e).reduce(0) { $0 + b[$1] * all[i / e * e + $1] } }
      exact.add(1, exact.upload(sums, p.shape), into: &dz, rows: nil)
      return outer(dz)
    }
    if mutation == .routerFullSoftmax, let dz = fullSoftmaxGradient(dw, p, routing) {
      var sum = exact.routerBackward(exact.zeros(dw.shape), inner(p), inner(routing), balance: inner(balance))
      exact.add(1, exact.upload(dz, p.shape), into: &sum, rows: nil)
      return outer(sum)
    }
    // The weights are read with an error of their own: with a single expert w (dw − w dw) cancels to what that leaves.
    let n = p.columnCount
    return rounded(
      exact.routerBackward(
        read(dw, n, times: 2), read(p, n, times: 2), inner(routing, weights: read(routing.weights, times: 2)), balance: read(balance)), n)
  }
  func dispatch(_ x: Tensor<RoundingBackend>, _ routing: Routing<RoundingBackend>) -> Tensor<RoundingBackend> {
    outer(exact.dispatch(inner(x), inner(routing)))
  }
  func combine(_ x: Tensor<RoundingBackend>, weights: Tensor<RoundingBackend>?, _ routing: Routing<RoundingBackend>)
    -> Tensor<RoundingBackend>
  {
    rounded(exact.combine(read(x, routing.slots), weights: weights.map { read($0) }, inner(routing)), routing.slots)
  }
  func dispatchBlocks(_ x: Tensor<RoundingBackend>, _ routing: Routing<RoundingBackend>) -> Tensor<RoundingBackend> {
    outer(exact.dispatchBlocks(inner(x), inner(routing)))
  }
  func combineBlocks(_ x: Tensor<RoundingBackend>, weights: Tensor<RoundingBackend>?, _ routing: Routing<RoundingBackend>)
    -> Tensor<RoundingBackend>
  {
    rounded(exact.combineBlocks(read(x), weights: weights.map { read($0) }, inner(routing)))
  }
  func groupedGemm(
    _ alpha: Double, _ a: Tensor<RoundingBackend>, _ b: ExpertStack<RoundingBackend>, _ beta: Double,
    into c: inout Tensor<RoundingBackend>, _ routing: Routing<RoundingBackend>
  ) {
    let n = a.columnCount
    let stack = ExpertStack(read(shifted(b)), experts: b.experts, along: b.axis, isTransposed: b.isTransposed)
    write(&c) {
      exact.groupedGemm(alpha, read(a, n), stack, beta, into: &$0, inner(routing))
      round(&$0, n)
    }
  }
  func groupedOuter(
    _ alpha: Double, _ a: Tensor<RoundingBackend>, _ b: Tensor<RoundingBackend>, into g: inout Tensor<RoundingBackend>,
    stackedAlong axis: StackAxis, _ routing: Routing<RoundingBackend>
  ) {
    write(&g) {
      exact.groupedOuter(alpha, read(a, a.rowCount), read(b), into: &$0, stackedAlong: axis, inner(routing))
      round(&$0, a.rowCount)
    }
  }
}
