/// A tensor as `_rebuild_tensor_v2` and `_v3` describe it: a view of a storage, in elements.
struct PickleTensor: Equatable, Sendable {
  let storage: PickleStorage
  let elementType: ElementType
  let offset: Int
  let shape: [Int]
  let strides: [Int]
}
