/// A container or tensor in the machine's list of objects.
enum PickleObject: Sendable {
  case tuple([PickleValue])
  case list([PickleValue])
  case dictionary(items: [(key: PickleValue, value: PickleValue)], isOrdered: Bool)
  case tensor(PickleTensor)
}
