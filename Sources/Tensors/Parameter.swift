/// A trained tensor with its gradient: a place in its arena.
///
/// A class, because a tied head and the embedding are one parameter and an optimizer updates what layers read. What is read is a
/// value like any other; writing through `&parameter.gradient` writes the arena itself, without a copy.
public final class Parameter<B: Backend> {
  /// What the tensor is, by which optimizers and charts tell parameters apart.
  public enum Role: Sendable {
    /// A weight of the base model.
    case base
    /// The A of a low-rank branch, or of all experts' branches on one matrix.
    case a
    /// The B of a low-rank branch, or of all experts'.
    case b
    /// A router.
    case router
  }

  /// A name for messages and moments: that of the tensor in the file, or what the files' names of a stack have in common.
  public let name: String
  /// What it is.
  public let role: Role
  /// Rows and columns.
  public let shape: Shape
  /// The first element's number in the arena.
  public private(set) var offset = 0
  private var home: ParameterArena<B>?

  /// Where value and gradient lie.
  ///
  /// - Precondition: an arena was made of the parameter, or the parameter with a value.
  public var arena: ParameterArena<B> {
    guard let home else { trap("\(name): it has no value before it lies in an arena") }
    return home
  }

  /// A parameter that gets its place, and with it a value of zero, when an arena is made of it and others.
  public init(_ name: String, _ shape: Shape, role: Role = .base) {
    self.name = name
    self.shape = shape
    self.role = role
  }

  /// A parameter of its own, with a zero gradient.
  ///
  /// - Parameter value: taken over where it has no gaps and begins its buffer, else copied.
  public init(_ name: String, _ value: Tensor<B>, role: Role = .base, on backend: B) {
    self.name = name
    self.role = role
    shape = value.shape
    let isOwn = value.isContiguous && value.offset == 0
    let own = isOwn ? value : backend.copy(value)
    home = ParameterArena(values: Tensor(storage: own.storage, shape: Shape(value.shape.count)), isB: role == .b, on: backend)
  }

  /// The elements' numbers in the arena.
  public var range: Range<Int> { offset..<offset + shape.count }

  /// The current value. Assigning copies into the arena; passing it `inout` writes there.
  ///
  /// - Precondition: what is assigned has the parameter's shape, and while one parameter of an arena is written none of its values is
  ///   read.
  public var value: Tensor<B> {
    get { view(of: arena.values) }
    _modify {
      var place = lent(&arena.lentValues)
      yield &place
      arena.lentValues = Tensor(storage: returned(place), shape: arena.shape)
    }
    set { replace(&arena.lentValues, with: newValue) }
  }

  /// The sum of the gradients since they were last filled with zero. Assigning copies into the arena.
  public var gradient: Tensor<B> {
    get { view(of: arena.gradients) }
    _modify {
      _ = arena.gradients  // made now if this is the first
      var place = lent(&arena.lentGradients)
      yield &place
      arena.lentGradients = Tensor(storage: returned(place), shape: arena.shape)
    }
    set {
      _ = arena.gradients
      replace(&arena.lentGradients, with: newValue)
    }
  }

  /// This parameter's part of a vector that is laid out as the arena: a moment, say.
  public func view(of whole: Tensor<B>) -> Tensor<B> {
    Tensor(storage: whole.storage, offset: whole.offset + offset, shape: shape)
  }

  /// Sets this parameter's part of such a vector.
  public func write(_ x: Tensor<B>, into whole: inout Tensor<B>) {
    requireShapes("Parameter.write", ("x", x.shape, shape), ("the whole", whole.shape, arena.shape))
    let own = x.isContiguous ? x : arena.backend.copy(x)
    let elements = Tensor<B>(storage: own.storage, offset: own.offset, shape: Shape(shape.count))
    arena.backend.copy(elements, into: &whole, rows: nil, columns: range)
  }

  /// Takes the arena's buffer, so that this place is its only holder while it is written; one that somebody else reads is copied first.
  private func lent(_ whole: inout Tensor<B>?) -> Tensor<B> {
    guard var tensor = whole.take() else { trap("\(name): the arena is written by two at once") }
    if !isKnownUniquelyReferenced(&tensor.storage) { tensor = arena.backend.copy(tensor) }
    return Tensor(storage: tensor.storage, offset: offset, shape: shape)
  }

  private func replace(_ whole: inout Tensor<B>?, with x: Tensor<B>) {
    requireShapes("Parameter", ("the new value", x.shape, shape))
    var place = lent(&whole)
    arena.backend.copy(x, into: &place)
    whole = Tensor(storage: returned(place), shape: arena.shape)
  }

  private func returned(_ place: Tensor<B>) -> B.Storage {
    guard place.offset == offset, place.shape == shape else { trap("\(name): a place in an arena was replaced by \(place.shape)") }
    return place.storage
  }

  fileprivate func place(in arena: ParameterArena<B>, at offset: Int) {
    guard home == nil else { trap("\(name): it lies in another arena") }
    (home, self.offset) = (arena, offset)
  }
}

/// Everything that one adapter trains (or the base, where that is trained), in one buffer each for values and gradients; optimizers
/// keep their moments in buffers of the same layout. Norm, clipping, update and zeroing are then one operation each, whatever the
/// number of parameters.
///
///     values, gradients   (n)      all A, routers and base weights, then all B; each begins at a multiple of 16 elements, zeros between
public final class ParameterArena<B: Backend> {
  /// n elements, gaps included.
  public let shape: Shape
  /// Where the B of low-rank branches lie, whose learning rate LoRA+ multiplies; the rest stands before them.
  public let rangeOfB: Range<Int>
  let backend: B
  fileprivate var lentValues: Tensor<B>?
  fileprivate var lentGradients: Tensor<B>?

  /// Elements at whose multiples parameters begin: 64 bytes of float32.
  private static var alignment: Int { 16 }

  /// Gives the parameters their places. Values and gradients are zero.
  ///
  /// - Precondition: each parameter once, and none that lies in an arena already.
  public init(_ parameters: [Parameter<B>], on backend: B) {
    self.backend = backend
    var offsets: [Int] = Array(repeating: 0, count: parameters.count)
    var (count, begin) = (0, 0)
    for isB in [false, true] {
      begin = count
      for (i, parameter) in parameters.enumerated() where (parameter.role == .b) == isB {
        offsets[i] = count
        count += (parameter.shape.count + Self.alignment - 1) / Self.alignment * Self.alignment
      }
    }
    shape = Shape(count)
    rangeOfB = begin..<count
    lentValues = backend.zeros(shape)
    for (parameter, offset) in zip(parameters, offsets) { parameter.place(in: self, at: offset) }
  }

  /// The arena of a single parameter.
  fileprivate init(values: Tensor<B>, isB: Bool, on backend: B) {
    shape = values.shape
    rangeOfB = (isB ? 0 : shape.count)..<shape.count
    self.backend = backend
    lentValues = values
  }

  /// The arenas that parameters lie in, each once, in their order.
  public static func of(_ parameters: [Parameter<B>]) -> [ParameterArena] {
    var seen: Set<ObjectIdentifier> = []
    return parameters.map(\.arena).filter { seen.insert(ObjectIdentifier($0)).inserted }
  }

  /// All values: (n).
  public var values: Tensor<B> {
    get {
      guard let lentValues else { trap("an arena's values are read while a parameter is written") }
      return lentValues
    }
    _modify {
      guard var whole = lentValues.take() else { trap("an arena's values are written by two at once") }
      yield &whole
      lentValues = whole
    }
  }

  /// All gradients: (n). The buffer is made when it is first asked for, so that a model which only answers has none.
  public var gradients: Tensor<B> {
    get {
      if let lentGradients { return lentGradients }
      let zeros = backend.zeros(shape)
      lentGradients = zeros
      return zeros
    }
    _modify {
      var whole = gradients
      lentGradients = nil
      yield &whole
      lentGradients = whole
    }
  }

  /// Takes the gradients out; what is added from then on begins at zero, in another buffer.
  public func takeGradients() -> Tensor<B> {
    let taken = gradients
    lentGradients = nil
    return taken
  }

  /// Puts gradients in.
  ///
  /// - Precondition: they have the arena's shape, and begin a buffer without gaps.
  public func putGradients(_ gradients: Tensor<B>) {
    requireShapes("ParameterArena", ("the gradients", gradients.shape, shape))
    guard gradients.isContiguous, gradients.offset == 0 else { trap("an arena's gradients are a part of another buffer") }
    lentGradients = gradients
  }
}
