import Tensors

// What is not written yet.
extension CUDABackend {
  public func attention(_ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, _ plan: SequencePlan<Self>, _ form: AttentionForm)
    -> (output: Tensor<Self>, logSumExp: Tensor<Self>) { trap("attention: no kernel yet") }
  public func attentionBackward(
    _ dy: Tensor<Self>, _ q: Tensor<Self>, _ k: Tensor<Self>, _ v: Tensor<Self>, output: Tensor<Self>, logSumExp: Tensor<Self>,
    _ plan: SequencePlan<Self>, _ form: AttentionForm
  ) -> (dq: Tensor<Self>, dk: Tensor<Self>, dv: Tensor<Self>) { trap("attentionBackward: no kernel yet") }
}
