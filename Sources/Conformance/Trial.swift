import Tensors

/// How a case lays out what an operation reads and writes.
public enum Layout: String, Sendable, CaseIterable {
  /// Inputs are tensors of their own; what is written lies between guard values in storage that nobody shares.
  case contiguous
  /// Inputs are row-strided views amid NaN; what is written is such a view of a tensor that somebody else holds,
  /// so that the operation has to copy first.
  case views
}

/// One case as it runs: inputs go to the backend, results come back and are compared element by element.
///
/// Every comparison has the form `guard error <= bound else fail`, so that a NaN can only fail, and counts what it
/// compared: a case that compared nothing fails unless it is declared empty.
public struct Trial<B: Backend> {
  /// The backend under test.
  public let backend: B
  /// How inputs and outputs are laid out.
  public let layout: Layout
  /// The bounds for the backend.
  public let tolerance: Tolerance
  /// Where inputs come from.
  public var source: RandomSource

  private let isEmpty: Bool
  private let expectsNaN: Bool
  private var compared = 0
  private var comparedNaN = 0
  private var failures: [String] = []
  private var missing: String?
  private var worst = (error: 0.0, bound: 0.0)

  /// A trial whose inputs depend on `name` alone, and on the precision unless they are the same `inEveryPrecision`.
  init(
    _ backend: B, _ layout: Layout, name: String, isProduct: Bool = true, isEmpty: Bool = false, expectsNaN: Bool = false,
    inEveryPrecision: Bool = false
  ) {
    self.backend = backend
    self.layout = layout
    self.isEmpty = isEmpty
    self.expectsNaN = expectsNaN
    tolerance = Tolerance(backend, products: isProduct)
    source = RandomSource(name, isExactInFloat: inEveryPrecision || B.Scalar.self != Double.self)
  }

  /// What became of the trial.
  var outcome: Outcome {
    if let first = failures.first {
      return .failed(failures.count == 1 ? first : "\(first) (and \(failures.count - 1) more)")
    }
    if let missing { return .notRun(reason: missing) }
    if compared == 0 && !isEmpty { return .failed("nothing was compared") }
    if expectsNaN && comparedNaN == 0 { return .failed("the case is about NaN, but the definition gave none") }
    return .passed(error: worst.error, bound: worst.bound)
  }

  // MARK: Inputs

  /// A matrix on the device, in the trial's layout.
  public func device(_ m: Matrix) -> Tensor<B> {
    layout == .contiguous ? backend.upload(m.values.map { B.Scalar($0) }, Shape(m.rows, m.columns)) : view(of: m).view
  }

  /// A vector on the device, in the trial's layout.
  public func device(_ v: [Double]) -> Tensor<B> {
    layout == .contiguous ? backend.upload(v.map { B.Scalar($0) }, Shape(v.count)) : view(of: v).view
  }

  /// Whole numbers on the device, in the trial's layout: as a view they stand amid zeros.
  public func device(_ v: [Int]) -> Indices<B> {
    if layout == .contiguous { return backend.upload(v.map { Int32($0) }) }
    return backend.upload([0, 0, 0] + v.map { Int32($0) } + [0])[3..<v.count + 3]
  }

  /// A plan of attention on the device.
  public func device(_ sequences: Naive.Sequences) -> SequencePlan<B> {
    let numbers = SequencePlan<B>.numbers(offsets: sequences.offsets, keyRows: sequences.keyRows)
    return SequencePlan(offsets: sequences.offsets, keyRows: sequences.keyRows, onDevice: device(numbers.map { Int($0) }))
  }

  /// A matrix as an operand, stored transposed when asked.
  public func operand(_ m: Matrix, transposed: Bool) -> Operand<B> {
    .dense(device(transposed ? m.transposed : m), transposed: transposed)
  }

  /// `m` as rows 1… and columns 2… of a tensor whose other elements are NaN.
  private func view(of m: Matrix) -> (view: Tensor<B>, whole: Tensor<B>, values: [Double]) {
    let whole = Matrix(m.rows + 3, m.columns + 5) { i, j in
      i >= 1 && i <= m.rows && j >= 2 && j < m.columns + 2 ? m[i - 1, j - 2] : .nan
    }
    let tensor = backend.upload(whole.values.map { B.Scalar($0) }, Shape(whole.rows, whole.columns))
    return (tensor.rows(1..<m.rows + 1).columns(2..<m.columns + 2), tensor, whole.values)
  }

  /// `v` as elements 3… of a longer vector whose other elements are NaN.
  private func view(of v: [Double]) -> (view: Tensor<B>, whole: Tensor<B>, values: [Double]) {
    let whole = [.nan, .nan, .nan] + v + [Double](repeating: .nan, count: 5)
    let tensor = backend.upload(whole.map { B.Scalar($0) }, Shape(whole.count))
    return (tensor.columns(3..<v.count + 3), tensor, whole)
  }

  // MARK: Outputs that exist before

  /// A matrix that an operation will write into or add to.
  public func writable(_ m: Matrix) -> Written<B> {
    if layout == .views {
      let (view, whole, values) = view(of: m)
      return Written(tensor: view, kept: whole, keptValues: values)
    }
    let guards = [Double](repeating: Written<B>.guardValue, count: m.columns)
    let whole = backend.upload((guards + m.values + guards).map { B.Scalar($0) }, Shape(m.rows + 2, m.columns))
    return Written(tensor: whole.rows(1..<m.rows + 1), guardsBefore: m.columns, guardsAfter: m.columns)
  }

  /// A vector that an operation will write into or add to.
  public func writable(_ v: [Double]) -> Written<B> {
    if layout == .views {
      let (view, whole, values) = view(of: v)
      return Written(tensor: view, kept: whole, keptValues: values)
    }
    let guards = [Double](repeating: Written<B>.guardValue, count: 5)
    let whole = backend.upload((guards + v + guards).map { B.Scalar($0) }, Shape(v.count + 10))
    return Written(tensor: whole.columns(5..<v.count + 5), guardsBefore: 5, guardsAfter: 5)
  }

  // MARK: Comparisons

  /// Each element within γ_roundings · magnitude of the expected one.
  public mutating func expect(
    _ name: String, _ found: Tensor<B>, _ expected: Matrix, _ roundings: Int, of magnitude: Matrix
  ) throws {
    let bounds = magnitude.values.map { tolerance.bound(Double(roundings), of: $0) }
    try compare(name, found, Shape(expected.rows, expected.columns), expected.values, bounds)
  }

  /// Each element within γ_roundings · magnitude of the expected one.
  public mutating func expect(
    _ name: String, _ found: Tensor<B>, _ expected: [Double], _ roundings: Int, of magnitude: [Double]
  ) throws {
    try compare(name, found, Shape(expected.count), expected, magnitude.map { tolerance.bound(Double(roundings), of: $0) })
  }

  /// Each element within its own bound.
  public mutating func expect(_ name: String, _ found: Tensor<B>, _ expected: Matrix, within bounds: Matrix) throws {
    try compare(name, found, Shape(expected.rows, expected.columns), expected.values, bounds.values)
  }

  /// Each element within its own bound.
  public mutating func expect(_ name: String, _ found: Tensor<B>, _ expected: [Double], within bounds: [Double]) throws {
    try compare(name, found, Shape(expected.count), expected, bounds)
  }

  /// Each element exactly.
  public mutating func expectExactly(_ name: String, _ found: Tensor<B>, _ expected: Matrix) throws {
    let bounds = [Double](repeating: 0, count: expected.values.count)
    try compare(name, found, Shape(expected.rows, expected.columns), expected.values, bounds)
  }

  /// Each element exactly.
  public mutating func expectExactly(_ name: String, _ found: Tensor<B>, _ expected: [Double]) throws {
    try compare(name, found, Shape(expected.count), expected, [Double](repeating: 0, count: expected.count))
  }

  /// Each integer.
  public mutating func expect(_ name: String, _ found: Indices<B>, _ expected: [Int]) throws {
    let values = try backend.download(found).map { Int($0) }
    guard found.count == expected.count, values.count == expected.count else {
      return fail("\(name) has \(found.count) integers (\(values.count) downloaded), expected \(expected.count)")
    }
    for i in 0..<expected.count {
      compared += 1
      guard values[i] == expected[i] else { return fail("\(name)[\(i)] is \(values[i]), expected \(expected[i])") }
    }
  }

  /// A written tensor within γ_roundings · magnitude, and nothing around it touched.
  public mutating func expect(
    _ name: String, _ written: Written<B>, _ expected: Matrix, _ roundings: Int, of magnitude: Matrix
  ) throws {
    try expect(name, written.tensor, expected, roundings, of: magnitude)
    try expectIntact(name, written)
  }

  /// A written vector within γ_roundings · magnitude, and nothing around it touched.
  public mutating func expect(
    _ name: String, _ written: Written<B>, _ expected: [Double], _ roundings: Int, of magnitude: [Double]
  ) throws {
    try expect(name, written.tensor, expected, roundings, of: magnitude)
    try expectIntact(name, written)
  }

  /// The first rows of a tensor within γ_roundings · magnitude; the others are nobody's.
  public mutating func expect(
    _ name: String, firstRowsOf found: Tensor<B>, _ expected: Matrix, _ roundings: Int, of magnitude: Matrix
  ) throws {
    guard found.rowCount >= expected.rows else { return fail("\(name) is \(found.shape), expected (\(expected.rows),…)") }
    try expect(name, found.rows(0..<expected.rows), expected, roundings, of: magnitude)
  }

  /// NaN exactly where the definition has NaN, and finite numbers elsewhere; values are other cases' business.
  public mutating func expectNaN(_ name: String, _ found: Tensor<B>, where expected: Matrix) throws {
    guard found.shape == Shape(expected.rows, expected.columns) else {
      return fail("\(name) is \(found.shape), expected (\(expected.rows),\(expected.columns))")
    }
    try expectNaN(name, found, where: expected.values)
  }

  /// NaN exactly where the definition has NaN, and finite numbers elsewhere; values are other cases' business.
  public mutating func expectNaN(_ name: String, _ found: Tensor<B>, where expected: [Double]) throws {
    let values = try backend.download(found)
    guard values.count == expected.count else { return fail("\(name) has \(values.count) elements, expected \(expected.count)") }
    for i in 0..<expected.count {
      compared += 1
      if expected[i].isNaN { comparedNaN += 1 }
      guard values[i].isNaN == expected[i].isNaN, values[i].isFinite == expected[i].isFinite else {
        return fail("\(name), element \(i) is \(values[i]), expected \(expected[i].isNaN ? "NaN" : "a finite number")")
      }
    }
  }

  /// A statement about the results.
  public mutating func expect(_ condition: Bool, _ message: @autoclosure () -> String) {
    compared += 1
    if !condition { fail(message()) }
  }

  /// Says that the backend has not what the case is about.
  public mutating func cannotRun(_ reason: String) { missing = reason }

  /// An error that was computed elsewhere.
  public mutating func expect(_ name: String, error: Double, within bound: Double) {
    compared += 1
    guard error <= bound else { return fail("\(name): error \(error), bound \(bound)") }
    remember(error, bound)
  }

  /// The guard values around a written tensor, or the tensor that shared its storage.
  mutating func expectIntact(_ name: String, _ written: Written<B>) throws {
    if let kept = written.kept {
      guard ObjectIdentifier(written.tensor.storage) != written.storage || written.tensor.shape.count == 0 else {
        return fail("\(name) was written into storage that somebody else holds")
      }
      let after = try backend.download(kept)
      guard after.count == written.keptValues.count else { return fail("\(name): the tensor that shares its storage changed size") }
      for i in 0..<after.count {
        let (now, before) = (Double(after[i]), written.keptValues[i])
        guard now == before || (now.isNaN && before.isNaN) else {
          return fail("\(name): element \(i) of the tensor that shares its storage changed from \(before) to \(now)")
        }
      }
      return
    }
    guard ObjectIdentifier(written.tensor.storage) == written.storage else {
      return fail("\(name) was copied although nobody else held it")
    }
    let count = written.tensor.shape.count
    let whole = Tensor<B>(
      storage: written.tensor.storage, offset: written.tensor.offset - written.guardsBefore,
      shape: Shape(written.guardsBefore + count + written.guardsAfter))
    let values = try backend.download(whole)
    for i in 0..<values.count where i < written.guardsBefore || i >= written.guardsBefore + count {
      guard Double(values[i]) == Written<B>.guardValue else {
        return fail("\(name): the guard value at \(i - written.guardsBefore) of \(count) elements became \(values[i])")
      }
    }
  }

  private mutating func compare(
    _ name: String, _ found: Tensor<B>, _ shape: Shape, _ expected: [Double], _ bounds: [Double]
  ) throws {
    guard found.shape == shape else { return fail("\(name) is \(found.shape), expected \(shape)") }
    let values = try backend.download(found).map { Double($0) }
    guard values.count == expected.count, bounds.count == expected.count else {
      return fail("\(name): \(values.count) values and \(bounds.count) bounds for \(expected.count) elements")
    }
    var wrong = 0
    var message = ""
    for i in 0..<expected.count {
      compared += 1
      if expected[i].isNaN {
        comparedNaN += 1
        if values[i].isNaN && expectsNaN { continue }
      } else {
        let error = values[i] == expected[i] ? 0 : abs(values[i] - expected[i])  // equal infinities have no difference
        if error <= bounds[i] {
          remember(error, bounds[i])
          continue
        }
      }
      wrong += 1
      if wrong == 1 {
        let place = shape.isVector ? "\(i)" : "\(i / shape.columns),\(i % shape.columns)"
        message = "\(name)[\(place)] of \(shape) is \(values[i]), expected \(expected[i]) ± \(bounds[i])"
      }
    }
    if wrong > 0 { fail("\(message), \(wrong) of \(expected.count) elements") }
  }

  private mutating func remember(_ error: Double, _ bound: Double) {
    if worst.bound == 0 || error * worst.bound > worst.error * bound { worst = (error, bound) }
  }

  private mutating func fail(_ message: String) { failures.append(message) }
}

/// A tensor that an operation writes, together with what must stay as it is.
public struct Written<B: Backend> {
  /// The tensor to hand over with `&`.
  public var tensor: Tensor<B>
  /// The whole tensor of which `tensor` is a view, when somebody else holds it, and its values.
  let kept: Tensor<B>?
  let keptValues: [Double]
  /// How many guard values lie around `tensor` in its storage, when nobody else holds it.
  let guardsBefore: Int
  let guardsAfter: Int
  /// The storage before anything was written.
  let storage: ObjectIdentifier

  /// What lies before and behind a tensor that is written in place; exact in every precision.
  static var guardValue: Double { 724_992 }

  init(tensor: Tensor<B>, kept: Tensor<B>? = nil, keptValues: [Double] = [], guardsBefore: Int = 0, guardsAfter: Int = 0) {
    self.tensor = tensor
    self.kept = kept
    self.keptValues = keptValues
    self.guardsBefore = guardsBefore
    self.guardsAfter = guardsAfter
    storage = ObjectIdentifier(tensor.storage)
  }
}
