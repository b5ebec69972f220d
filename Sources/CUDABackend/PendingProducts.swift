import Tensors

// What is not written yet.
extension CUDABackend {
  public func gemm(
    _ alpha: Double, _ a: Operand<Self>, _ b: Operand<Self>, _ beta: Double, into c: inout Tensor<Self>, rows: Range<Int>?) { trap("gemm: no kernel yet") }
  public func groupedGemm(
    _ alpha: Double, _ a: Tensor<Self>, _ b: ExpertStack<Self>, _ beta: Double, into c: inout Tensor<Self>, _ routing: Routing<Self>) { trap("groupedGemm: no kernel yet") }
  public func groupedOuter(
    _ alpha: Double, _ a: Tensor<Self>, _ b: Tensor<Self>, into g: inout Tensor<Self>, stackedAlong axis: StackAxis,
    _ routing: Routing<Self>) { trap("groupedOuter: no kernel yet") }
}
