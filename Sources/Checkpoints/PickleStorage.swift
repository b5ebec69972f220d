/// The argument of a persistent id: which member holds the bytes.
struct PickleStorage: Equatable, Sendable {
  let key: String
  /// nil for an `UntypedStorage`, which counts bytes.
  let elementType: ElementType?
  let count: Int
}
