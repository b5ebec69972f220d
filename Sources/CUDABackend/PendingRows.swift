import Tensors

// What is not written yet.
extension CUDABackend {
  public func addColumnSums(_ x: Tensor<Self>, weights: Tensor<Self>?, into sums: inout Tensor<Self>) { trap("addColumnSums: no kernel yet") }
  public func sum(_ x: Tensor<Self>) -> Tensor<Self> { trap("sum: no kernel yet") }
  public func dot(_ x: Tensor<Self>, _ y: Tensor<Self>) -> Tensor<Self> { trap("dot: no kernel yet") }
  public func rowDots(_ x: Tensor<Self>, _ y: Tensor<Self>) -> Tensor<Self> { trap("rowDots: no kernel yet") }
  public func rmsNorm(_ x: Tensor<Self>, _ weight: Tensor<Self>, offset: Double, epsilon: Double) -> (y: Tensor<Self>, rho: Tensor<Self>) { trap("rmsNorm: no kernel yet") }
  public func rmsNormBackward(
    _ dy: Tensor<Self>, _ x: Tensor<Self>, _ weight: Tensor<Self>, offset: Double, rho: Tensor<Self>, into dx: inout Tensor<Self>) { trap("rmsNormBackward: no kernel yet") }
  public func rmsNormWeightGradient(_ dy: Tensor<Self>, _ x: Tensor<Self>, rho: Tensor<Self>, into dweight: inout Tensor<Self>) { trap("rmsNormWeightGradient: no kernel yet") }
  public func rope(_ x: inout Tensor<Self>, positions: Indices<Self>, table: Tensor<Self>, inverse: Bool) { trap("rope: no kernel yet") }
  public func embedding(_ ids: Indices<Self>, _ table: Operand<Self>) -> Tensor<Self> { trap("embedding: no kernel yet") }
  public func addEmbeddingGradient(_ alpha: Double, _ dy: Tensor<Self>, _ ids: Indices<Self>, into dtable: inout Tensor<Self>) { trap("addEmbeddingGradient: no kernel yet") }
  public func crossEntropy(_ z: inout Tensor<Self>, labels: Indices<Self>, scale: Double, softcap: Double?) -> Tensor<Self> { trap("crossEntropy: no kernel yet") }
  public func gather(_ x: Tensor<Self>, rows: Indices<Self>) -> Tensor<Self> { trap("gather: no kernel yet") }
  public func addScattered(_ x: Tensor<Self>, rows: Indices<Self>, into y: inout Tensor<Self>) { trap("addScattered: no kernel yet") }
  public func clipFactor(_ squaredNorm: Tensor<Self>, loss: Tensor<Self>, maximum: Double) -> (factor: Tensor<Self>, norm: Tensor<Self>) { trap("clipFactor: no kernel yet") }
  public func adamW(
    _ x: inout Tensor<Self>, gradient: Tensor<Self>, factor: Tensor<Self>?, _ m: inout Tensor<Self>, _ v: inout Tensor<Self>,
    _ settings: AdamWSettings, range: Range<Int>?) { trap("adamW: no kernel yet") }
  public func sgd(
    _ x: inout Tensor<Self>, gradient: Tensor<Self>, factor: Tensor<Self>?, momentum b: inout Tensor<Self>, _ settings: SGDSettings,
    range: Range<Int>?) { trap("sgd: no kernel yet") }
  public func softmax(_ logits: Tensor<Self>) -> Tensor<Self> { trap("softmax: no kernel yet") }
  public func choose(_ p: Tensor<Self>, _ policy: RoutingPolicy) -> Indices<Self> { trap("choose: no kernel yet") }
  public func route(_ p: Tensor<Self>, choice: Indices<Self>, _ policy: RoutingPolicy) -> Routing<Self> { trap("route: no kernel yet") }
  public func routerBackward(_ dw: Tensor<Self>, _ p: Tensor<Self>, _ routing: Routing<Self>, balance: Tensor<Self>) -> Tensor<Self> { trap("routerBackward: no kernel yet") }
  public func dispatch(_ x: Tensor<Self>, _ routing: Routing<Self>) -> Tensor<Self> { trap("dispatch: no kernel yet") }
  public func combine(_ x: Tensor<Self>, weights: Tensor<Self>?, _ routing: Routing<Self>) -> Tensor<Self> { trap("combine: no kernel yet") }
  public func dispatchBlocks(_ x: Tensor<Self>, _ routing: Routing<Self>) -> Tensor<Self> { trap("dispatchBlocks: no kernel yet") }
  public func combineBlocks(_ x: Tensor<Self>, weights: Tensor<Self>?, _ routing: Routing<Self>) -> Tensor<Self> { trap("combineBlocks: no kernel yet") }
}
