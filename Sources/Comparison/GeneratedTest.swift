import Checkpoints
import Conformance
import Platform

/// An operation that a candidate computes wrongly, with the numbers of that very call.
public struct FailingOperation: Sendable {
  /// What an operation reads.
  public struct Input: Sendable {
    /// Its name in the trace.
    public var name: String
    /// Its sizes, outermost first.
    public var shape: [Int]
    /// Its values, row-major.
    public var values: [Double]
    /// Whether they are whole numbers, or numbers of which bits.
    public var elementType: ElementType
    /// Its letter in the equation, or what it says.
    public var meaning: String

    /// An input.
    public init(name: String, shape: [Int], values: [Double], elementType: ElementType, meaning: String = "") {
      (self.name, self.shape, self.values, self.elementType, self.meaning) = (name, shape, values, elementType, meaning)
    }
  }

  /// The tensor's name in a trace.
  public var name: String
  /// The kind of the operation: `linear`, `norm`, …
  public var kind: String
  /// How the tensor is formed.
  public var equation: String
  /// Numbers that the equation takes: ε, a scale, heads.
  public var attributes: [(name: String, value: Double)]
  /// What it is formed from.
  public var inputs: [Input]
  /// The sizes of the result.
  public var shape: [Int]
  /// The result by the reference, from these inputs, and the candidate's.
  public var expected: [Double], found: [Double]
  /// What rounding explains of ‖found − expected‖₂ / ‖expected‖₂.
  public var budget: Double
  /// What rounding explains of the norm of a single row's difference, where that of all rows hides the error; else nil.
  public var rowBudget: Double?

  /// A call of an operation.
  public init(
    name: String, kind: String, equation: String, attributes: [(name: String, value: Double)] = [], inputs: [Input], shape: [Int],
    expected: [Double], found: [Double], budget: Double
  ) {
    (self.name, self.kind, self.equation, self.attributes, self.inputs) = (name, kind, equation, attributes, inputs)
    (self.shape, self.expected, self.found, self.budget) = (shape, expected, found, budget)
  }
}

/// A package with one test: red for what the candidate gave, green when the operation is right.
///
///     DIR/Package.swift
///     DIR/Tests/OperationTests/OperationTests.swift       `candidate(_:)` is where one's own operation goes
///     DIR/Tests/OperationTests/case/case.json             operation, equation, budget
///     DIR/Tests/OperationTests/case/inputs.safetensors, expected.safetensors, found.safetensors
///
/// The folder `case` is one of the format of `Fixtures/cases`, so that a program in any language can read it.
public enum GeneratedTest {
  /// Writes the package.
  ///
  /// - Parameters:
  ///   - folder: a folder that is not there yet, or empty.
  ///   - library: where this library is, a folder or the address of a repository; by default the checkout that this program was built
  ///     from. The environment's `MIXLORA` overrides it when the test is built.
  /// - Throws: `CheckpointError` if the folder is not empty, if a shape does not fit its values, or if the system refuses; a folder that
  ///   was begun is then removed.
  public static func write(_ operation: FailingOperation, to folder: String, library: String = checkout) throws {
    guard Folder.names(in: folder).isEmpty, !MappedFile.isRegularFile(folder) else {
      throw CheckpointError(file: folder, found: "something there", expected: "an empty folder, or none, for the test")
    }
    let (partial, tests, data) = (
      folder + ".partial", folder + ".partial/Tests/OperationTests", folder + ".partial/Tests/OperationTests/case"
    )
    do {
      for path in [partial, partial + "/Tests", tests, data] { try Folder.create(path) }
      try AtomicFile.write(manifest(library), to: partial + "/Package.swift")
      try AtomicFile.write(source(operation), to: tests + "/OperationTests.swift")
      try AtomicFile.write(description(operation).serialized(.indented(2)) + "\n", to: data + "/case.json")
      try write(operation.inputs, to: data + "/inputs.safetensors")
      let result = { FailingOperation.Input(name: operation.name, shape: operation.shape, values: $0, elementType: .float64) }
      try write([result(operation.expected)], to: data + "/expected.safetensors")
      try write([result(operation.found)], to: data + "/found.safetensors")
      Folder.remove(folder)  // empty, or not there
      try Folder.rename(partial, to: folder)
    } catch {
      for path in [data, tests, partial + "/Tests", partial] { Folder.remove(path) }
      throw error
    }
  }

  /// The folder of the package that this program was built from.
  public static var checkout: String {
    #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
  }

  /// Whole numbers as I64, what F32 holds exactly as that, all else as F64.
  private static func write(_ tensors: [FailingOperation.Input], to path: String) throws {
    var values: [String: [Double]] = [:]
    let entries = try tensors.map { tensor in
      let type: ElementType =
        switch tensor.elementType {
        case .int64, .int32, .int16, .int8, .uint8, .uint16, .uint32, .bool: .int64
        default: tensor.values.allSatisfy { Double(Float($0)) == $0 || !$0.isFinite } ? .float32 : .float64
        }
      let entry = try TensorEntry(name: tensor.name, elementType: type, shape: tensor.shape)
      guard entry.elementCount == tensor.values.count else {
        throw CheckpointError(
          file: path, place: .tensor(tensor.name), found: "\(tensor.values.count) values",
          expected: "\(entry.elementCount) of \(tensor.shape)")
      }
      values[tensor.name] = tensor.values
      return entry
    }
    try SafetensorsWriter.write(to: path, entries: entries) { entry, emit in
      let list = values[entry.name] ?? []
      switch entry.elementType {
      case .float32: try list.map { Float($0) }.withUnsafeBytes { try emit($0) }
      case .int64: try list.map { Int64(exactly: $0) ?? 0 }.withUnsafeBytes { try emit($0) }
      default: try list.withUnsafeBytes { try emit($0) }
      }
    }
  }

  private static func description(_ operation: FailingOperation) -> JSON {
    var attributes = JSON.Object()
    for (name, value) in operation.attributes { attributes[name] = JSON(value) }
    var outputs = JSON.Object()
    var output = JSON.Object()
    output["budget"] = JSON(operation.budget)
    if let budget = operation.rowBudget { output["row_budget"] = JSON(budget) }
    outputs[operation.name] = .object(output)
    var meanings = JSON.Object()
    for input in operation.inputs { meanings[input.name] = JSON(input.meaning) }
    return [
      "case": 1, "operation": JSON(operation.kind), "equation": JSON(operation.equation), "attributes": .object(attributes),
      "inputs": .array(operation.inputs.map { JSON($0.name) }), "meanings": .object(meanings), "outputs": .object(outputs),
    ]
  }

  // MARK: The package's text

  private static func manifest(_ library: String) -> String {
    """
    // swift-tools-version: 6.2
    \(imports("PackageDescription"))

    // Where the library MixLoRA is: a folder, or the address of its repository. `MIXLORA=… swift test` takes another.
    let place = Context.environment["MIXLORA"] ?? \(literal(library))
    let name = String(place.split(separator: "/").last ?? "").replacing(".git", with: "")
    let library: Package.Dependency = place.contains("://") ? .package(url: place, branch: "main") : .package(path: place)

    let package = Package(
      name: "OperationTest",
      platforms: [.macOS(.v15)],
      dependencies: [library],
      targets: [
        .testTarget(name: "OperationTests", dependencies: [.product(name: "Conformance", package: name)], exclude: ["case"])
      ]
    )

    """
  }

  private static func source(_ operation: FailingOperation) -> String {
    let inputs = operation.inputs.map { input in
      "///     \(presentable(input.name)) \(input.shape)\(input.meaning.isEmpty ? "" : "  " + presentable(input.meaning))"
    }.joined(separator: "\n")
    let attributes = operation.attributes.map { "///     \(presentable($0.name)) = \($0.value)" }.joined(separator: "\n")
    let budget = operation.budget.isFinite ? operation.budget : 0  // where nothing is known, nothing is explained
    return """
      \(imports("Conformance", "Testing"))

      /// \(presentable(operation.name)): \(presentable(operation.kind)).
      ///
      ///     \(presentable(operation.equation))
      ///
      /// Inputs, row-major; rows are the real tokens of the batch in their order, and an expert's `tokens` are numbers of such rows:
      ///
      \(inputs)\(attributes.isEmpty ? "" : "\n" + attributes)
      @Suite struct OperationTests {
        static let name = \(literal(operation.name))

        /// Your operation goes here: the result \(operation.shape), row-major, from `inputs["…"]!.values` and `.shape`.
        ///
        /// Until then it is what your run gave, and the test is red.
        func candidate(_ inputs: NamedTensors) throws -> [Double] {
          try tensors("found")[Self.name]!.values
        }

        /// The reference's result is float64; what rounding explains of a difference was derived from the precision of your run.
        @Test func theOperationIsRight() throws {
          let expected = try tensors("expected")
          let result = NamedTensors(Self.name, try candidate(tensors("inputs")), shape: \(operation.shape))
          #expect(result.matches(expected, within: .relative(\(budget))))
        }
      \(rowTest(operation))
        private func tensors(_ file: String) throws -> NamedTensors {
          let folder = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
          return try NamedTensors(contentsOf: folder + "/case/" + file + ".safetensors")
        }
      }

      """
  }

  /// Where the norm of all rows hides that one is wrong, a test of the worst.
  private static func rowTest(_ operation: FailingOperation) -> String {
    guard let budget = operation.rowBudget, let width = operation.shape.last else { return "" }
    return """

        /// A single row is off by no more than rounding makes of the worst one: in the norm of all rows it would not be seen.
        @Test func everyRowIsRight() throws {
          let (result, expected) = (try candidate(tensors("inputs")), try tensors("expected")[Self.name]!.values)
          for begin in stride(from: 0, to: expected.count, by: \(width)) {
            let squares = (begin..<begin + \(width)).map { (result[$0] - expected[$0]) * (result[$0] - expected[$0]) }
            #expect(squares.reduce(0, +).squareRoot() <= \(budget), "row \\(begin / \(width))")
          }
        }

      """
  }

  private static func imports(_ modules: String...) -> String { modules.map { "import \($0)" }.joined(separator: "\n") }

  /// A text as a literal of Swift, whatever is in it.
  private static func literal(_ text: String) -> String {
    var literal = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"", "\\": literal += "\\\(scalar)"
      case " "..."~": literal.unicodeScalars.append(scalar)
      default: literal += "\\u{\(String(scalar.value, radix: 16))}"
      }
    }
    return literal + "\""
  }
}
