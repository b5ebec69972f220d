import JSON

/// A pickle machine for state dicts: a data parser that executes nothing.
///
/// Pickle is a program for a stack machine whose `GLOBAL` and `REDUCE` import and call anything. Here a global is one of the cases of
/// `PickleGlobal`, and a reduction is a pattern of arguments that becomes a value. The opcodes are those of torch's own restricted
/// unpickler (`torch/_weights_only_unpickler.py`, protocol 2) without `NEWOBJ` and `EMPTY_SET`, which no state dict needs. Counts of
/// operations, stack, memo and string bytes are capped; memory grows linearly with the text.
struct Pickle {
  /// Containers and tensors, by the positions that values hold.
  private(set) var objects: [PickleObject] = []
  /// The value that the pickle describes.
  private(set) var root: PickleValue = .none

  private static let maximumOperations = 10_000_000  // a tensor takes about 25
  private static let maximumStack = 1_000_000
  private static let maximumMemo = 4_000_000
  private static let maximumString = 65_536

  private let bytes: [UInt8]
  private let file: String
  private let member: String
  private var offset = 0
  private var operation = 0  // offset of the current opcode, for messages
  private var stack: [PickleValue] = []
  private var marks: [Int] = []  // heights of the stack at open MARKs
  private var memo: [UInt32: PickleValue] = [:]

  /// Runs a pickle to its end.
  ///
  /// - Throws: `CheckpointError` with the offset of the opcode, what was found and what was expected.
  init(_ bytes: [UInt8], file: String, member: String) throws {
    self.bytes = bytes
    self.file = file
    self.member = member
    try run()
  }

  /// The items of a dictionary; nil for any other value.
  func items(of value: PickleValue) -> [(key: PickleValue, value: PickleValue)]? {
    guard case .dictionary(let index) = value, case .dictionary(let items, _) = objects[index] else { return nil }
    return items
  }

  /// A tensor; nil for any other value.
  func tensor(_ value: PickleValue) -> PickleTensor? {
    guard case .tensor(let index) = value, case .tensor(let tensor) = objects[index] else { return nil }
    return tensor
  }

  private mutating func run() throws {
    let (prefix, version) = (try byte(), try byte())
    guard prefix == 0x80, version == 2 else {
      throw failure("the bytes \(prefix) \(version)", "128 2, a pickle of protocol 2 as torch.save writes by default")
    }
    var operations = 0
    while true {
      operation = offset
      operations += 1
      guard operations <= Self.maximumOperations else { throw failure("more operations", "at most \(Self.maximumOperations)") }
      let opcode = try byte()
      if opcode == UInt8(ascii: ".") { break }  // STOP
      try execute(opcode)
      guard stack.count <= Self.maximumStack, marks.count <= Self.maximumStack else {
        throw failure("a higher stack", "at most \(Self.maximumStack) values")
      }
      guard memo.count <= Self.maximumMemo else { throw failure("a larger memo", "at most \(Self.maximumMemo) values") }
    }
    guard stack.count == 1, marks.isEmpty, offset == bytes.count else {
      throw failure(
        "STOP with \(stack.count) values, \(marks.count) marks and \(bytes.count - offset) more bytes", "one value, no mark and the end")
    }
    root = stack[0]
  }

  private mutating func execute(_ opcode: UInt8) throws {
    switch UnicodeScalar(opcode) {
    // Constants.
    case "N": stack.append(.none)
    case "\u{88}": stack.append(.bool(true))
    case "\u{89}": stack.append(.bool(false))
    case "J": stack.append(.integer(Int(Int32(bitPattern: try unsigned()))))
    case "K": stack.append(.integer(Int(try byte())))
    case "M": stack.append(.integer(Int(UInt16(truncatingIfNeeded: try unsigned(byteCount: 2)))))
    case "\u{8A}": stack.append(.integer(try longInteger()))
    case "G": stack.append(.double(Double(bitPattern: try bigEndian())))
    case "X": stack.append(.string(try string(length: Int(try unsigned()))))
    case "U": stack.append(.string(try string(length: Int(try byte()))))
    case "c": stack.append(.global(try global()))

    // Containers.
    case "(": marks.append(stack.count)
    case ")": stack.append(add(.tuple([]), as: PickleValue.tuple))
    case "t": try appendTuple(popToMark())
    case "\u{85}": try appendTuple(pop(1))
    case "\u{86}": try appendTuple(pop(2))
    case "\u{87}": try appendTuple(pop(3))
    case "]": stack.append(add(.list([]), as: PickleValue.list))
    case "a": try extendList(with: pop(1))
    case "e": try extendList(with: popToMark())
    case "}": stack.append(add(.dictionary(items: [], isOrdered: false), as: PickleValue.dictionary))
    case "s": try extendDictionary(with: pop(2))
    case "u": try extendDictionary(with: popToMark())

    // The memo.
    case "q": try remember(UInt32(byte()))
    case "r": try remember(unsigned())
    case "h": try recall(UInt32(byte()))
    case "j": try recall(unsigned())

    // What would be calls.
    case "Q": stack.append(.storage(try storage(pop(1)[0])))
    case "R":
      let call = try pop(2)
      stack.append(try reduce(call[0], call[1]))
    case "b": try build(pop(1)[0])

    default:
      throw failure("opcode 0x\(String(opcode, radix: 16, uppercase: true))", "an opcode that a state dict of tensors needs")
    }
  }

  // MARK: Reading

  private mutating func byte() throws -> UInt8 {
    guard offset < bytes.count else { throw failure("the end of the pickle", "more bytes") }
    defer { offset += 1 }
    return bytes[offset]
  }

  private mutating func unsigned(byteCount: Int = 4) throws -> UInt32 {
    var value: UInt32 = 0
    for shift in 0..<byteCount { value |= UInt32(try byte()) << (8 * shift) }
    return value
  }

  private mutating func bigEndian() throws -> UInt64 {
    var value: UInt64 = 0
    for _ in 0..<8 { value = value << 8 | UInt64(try byte()) }
    return value
  }

  /// LONG1: length (1) · two's complement, little-endian.
  private mutating func longInteger() throws -> Int {
    let length = Int(try byte())
    guard length <= 8 else { throw failure("an integer of \(length) bytes", "at most 8") }
    var value: UInt64 = 0
    var sign: UInt8 = 0
    for shift in 0..<length {
      sign = try byte()
      value |= UInt64(sign) << (8 * shift)
    }
    // Spread the sign bit over the bytes that are not there.
    if sign & 0x80 != 0, length < 8 { value |= UInt64.max << (8 * length) }
    return Int(Int64(bitPattern: value))
  }

  private mutating func string(length: Int) throws -> String {
    guard length <= Self.maximumString, length <= bytes.count - offset else {
      throw failure(
        "a string of \(length) bytes", "at most \(Self.maximumString) and no more than the \(bytes.count - offset) that are left")
    }
    let text = Array(bytes[offset..<(offset + length)])
    guard firstInvalidUTF8(in: text) == nil else { throw failure("a string that is not UTF-8", "UTF-8") }
    offset += length
    return String(decoding: text, as: UTF8.self)
  }

  /// GLOBAL: module \n name \n
  private mutating func global() throws -> PickleGlobal {
    var lines: [String] = []
    for _ in 0..<2 {
      let rest = bytes[offset...].prefix(256)
      guard let end = rest.firstIndex(of: UInt8(ascii: "\n")) else { throw failure("a global name without an end", "a short line") }
      lines.append(String(decoding: bytes[offset..<end], as: UTF8.self))
      offset = end + 1
    }
    let name = "\(lines[0]).\(lines[1])"
    guard let global = PickleGlobal(rawValue: name), lines[0].hasSameBytes(as: global.module) else {
      throw failure("the global \(quoted(name))", "only what a state dict of tensors needs; it is not imported")
    }
    return global
  }

  // MARK: Stack, memo and containers

  /// Takes the topmost values, lowest first; they may not reach below an open mark.
  private mutating func pop(_ count: Int) throws -> [PickleValue] {
    let floor = marks.last ?? 0
    guard stack.count - floor >= count else {
      throw failure("\(stack.count - floor) values on the stack", "\(count) for opcode \(quoted(String(UnicodeScalar(bytes[operation]))))")
    }
    defer { stack.removeLast(count) }
    return Array(stack[(stack.count - count)...])
  }

  private mutating func popToMark() throws -> [PickleValue] {
    guard let mark = marks.popLast() else { throw failure("no mark on the stack", "a MARK before this opcode") }
    defer { stack.removeLast(stack.count - mark) }
    return Array(stack[mark...])
  }

  private mutating func top() throws -> PickleValue {
    guard stack.count > marks.last ?? 0, let value = stack.last else { throw failure("an empty stack", "a value") }
    return value
  }

  private mutating func remember(_ index: UInt32) throws {
    memo[index] = try top()
  }

  private mutating func recall(_ index: UInt32) throws {
    guard let value = memo[index] else { throw failure("memo \(index), which is not set", "a PUT of it before") }
    stack.append(value)
  }

  private mutating func add(_ object: PickleObject, as value: (Int) -> PickleValue) -> PickleValue {
    objects.append(object)
    return value(objects.count - 1)
  }

  private mutating func appendTuple(_ elements: [PickleValue]) {
    stack.append(add(.tuple(elements), as: PickleValue.tuple))
  }

  private mutating func extendList(with values: [PickleValue]) throws {
    guard case .list(let index) = try top(), case .list(var elements) = objects[index] else {
      throw failure("\(try top().kind) under APPEND", "a list")
    }
    objects[index] = .list([])  // so that appending does not copy
    elements += values
    objects[index] = .list(elements)
  }

  private mutating func extendDictionary(with values: [PickleValue]) throws {
    guard values.count % 2 == 0 else { throw failure("\(values.count) keys and values", "an even number") }
    guard case .dictionary(let index) = try top(), case .dictionary(var items, let isOrdered) = objects[index] else {
      throw failure("\(try top().kind) under SETITEM", "a dictionary")
    }
    objects[index] = .dictionary(items: [], isOrdered: isOrdered)  // so that appending does not copy
    for position in stride(from: 0, to: values.count, by: 2) { items.append((values[position], values[position + 1])) }
    objects[index] = .dictionary(items: items, isOrdered: isOrdered)
  }

  private func elements(of value: PickleValue) -> [PickleValue]? {
    guard case .tuple(let index) = value, case .tuple(let elements) = objects[index] else { return nil }
    return elements
  }

  // MARK: Patterns instead of calls

  /// `("storage", type, key, location, count)`; the location does not matter to a reader.
  private func storage(_ id: PickleValue) throws -> PickleStorage {
    guard let parts = elements(of: id), parts.count == 5, case .string("storage") = parts[0], case .global(let type) = parts[1],
      case .string(let key) = parts[2], case .string = parts[3], case .integer(let count) = parts[4]
    else {
      throw failure("another persistent id", "(\"storage\", type, key, location, count)")
    }
    guard type == .untypedStorage || type.storageType != nil else { throw failure("a storage of type \(type.rawValue)", "a storage type") }
    guard count >= 0 else { throw failure("storage \(quoted(key)) of \(count) elements", "a count of at least 0") }
    return PickleStorage(key: key, elementType: type.storageType, count: count)
  }

  private mutating func reduce(_ callee: PickleValue, _ arguments: PickleValue) throws -> PickleValue {
    guard case .global(let global) = callee, let arguments = elements(of: arguments) else {
      throw failure("REDUCE of \(callee.kind)", "a known global with a tuple of arguments")
    }
    switch global {
    case .orderedDict where arguments.isEmpty:
      return add(.dictionary(items: [], isOrdered: true), as: PickleValue.dictionary)
    case .rebuildTensorV2 where arguments.count == 6 || arguments.count == 7:
      try requireNothing(arguments.dropFirst(6), "metadata")
      return try rebuildTensor(arguments, dtype: nil)
    case .rebuildTensorV3 where arguments.count == 7 || arguments.count == 8:
      guard case .global(let dtype) = arguments[6], let elementType = dtype.dtype else {
        throw failure("\(arguments[6].kind) as dtype", "a torch dtype")
      }
      try requireNothing(arguments.dropFirst(7), "metadata")
      return try rebuildTensor(arguments, dtype: elementType)
    case .rebuildParameter where arguments.count == 3:
      guard case .tensor = arguments[0], case .bool = arguments[1] else {
        throw failure("a parameter of \(arguments[0].kind), \(arguments[1].kind)", "a tensor and requires_grad")
      }
      try requireNothing(arguments.dropFirst(2), "hooks")
      return arguments[0]
    case .size where arguments.count == 1 && elements(of: arguments[0]) != nil:
      return arguments[0]
    case .device where (1...2).contains(arguments.count):
      return .device
    default:
      throw failure("\(global.rawValue) with \(arguments.count) arguments", "a call that builds a tensor, a parameter or a dictionary")
    }
  }

  /// `(storage, offset, size, stride, requires_grad, hooks, …)`
  private mutating func rebuildTensor(_ arguments: [PickleValue], dtype: ElementType?) throws -> PickleValue {
    guard case .storage(let storage) = arguments[0], case .integer(let offset) = arguments[1], let shape = integers(arguments[2]),
      let strides = integers(arguments[3]), case .bool = arguments[4]
    else {
      throw failure(
        "a tensor of (\(arguments.prefix(5).map(\.kind).joined(separator: ", ")))", "(storage, offset, size, stride, requires_grad)")
    }
    try requireNothing(arguments[5...5], "hooks")
    // A typed storage has its own type, and v3 names one for an untyped storage.
    guard let elementType = dtype ?? storage.elementType, storage.elementType == nil || storage.elementType == elementType else {
      throw failure(
        "a tensor of dtype \(dtype?.rawValue ?? "none") over a storage of \(storage.elementType?.rawValue ?? "bytes")", "one element type")
    }
    return add(
      .tensor(PickleTensor(storage: storage, elementType: elementType, offset: offset, shape: shape, strides: strides)),
      as: PickleValue.tensor)
  }

  private func integers(_ value: PickleValue) -> [Int]? {
    guard let elements = elements(of: value) else { return nil }
    let integers = elements.compactMap { if case .integer(let integer) = $0 { integer } else { nil } }
    return integers.count == elements.count ? integers : nil
  }

  /// Hooks must be empty, and so must metadata: it would say that the bytes are to be negated or conjugated.
  private func requireNothing(_ values: ArraySlice<PickleValue>, _ what: String) throws {
    for value in values where value != .none && items(of: value)?.isEmpty != true {
      throw failure("\(what) \(value.kind) with a tensor", "none")
    }
  }

  /// A module's state dict carries `{"_metadata": …}`, the versions of its layers, which are dropped.
  private mutating func build(_ state: PickleValue) throws {
    guard case .dictionary(let target) = try top(), case .dictionary(_, isOrdered: true) = objects[target], let items = items(of: state),
      items.count == 1, case .string("_metadata") = items[0].key
    else {
      throw failure("BUILD of \(try top().kind) from \(state.kind)", "an OrderedDict and its \"_metadata\"")
    }
  }

  private func failure(_ found: String, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: .member(member, byte: operation), found: found, expected: expected)
  }
}
