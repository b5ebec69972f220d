import Checkpoints
import Conformance
import Foundation
import Testing

/// One folder of `Fixtures/cases`: an operation with its inputs, PyTorch's results and what rounding explains of a difference.
struct CaseFolder: CustomTestStringConvertible, Sendable {
  let name: String
  let path: String
  let operation: String
  var attributes: JSON
  var inputs: NamedTensors
  let expected: NamedTensors
  let outputs: JSON

  var testDescription: String { name }

  init(_ name: String) throws {
    self.name = name
    path = Self.root + name
    let json = try JSON(contentsOf: path + "/case.json")
    guard json["case"]?.intValue == 1, let operation = json["operation"]?.stringValue, let attributes = json["attributes"],
      let outputs = json["outputs"]
    else { throw CheckpointError(file: path + "/case.json", found: "another description", expected: "a case of version 1") }
    (self.operation, self.attributes, self.outputs) = (operation, attributes, outputs)
    inputs = try NamedTensors(contentsOf: path + "/inputs.safetensors")
    expected = try NamedTensors(contentsOf: path + "/expected.safetensors")
  }

  private static let root =
    #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/") + "/Fixtures/cases/"

  /// Every folder with a case.
  static let all: [CaseFolder] = {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
    return names.sorted().filter { FileManager.default.fileExists(atPath: root + $0 + "/case.json") }.compactMap { try? CaseFolder($0) }
  }()

  /// What rounding in a precision explains of each result: κ (γ_n(u) + u), n the longest sum and κ how much the operation enlarges what
  /// is done to its numbers; nothing of a decision.
  func budget(in precision: Precision) throws -> Budget {
    var errors: [String: Double] = [:]
    for member in outputs.objectValue?.members ?? [] {
      guard member.value["exact"]?.boolValue != true else {
        errors[member.key] = 0
        continue
      }
      guard let condition = member.value["condition"]?.doubleValue, let length = member.value["length"]?.intValue else {
        throw CheckpointError(file: path + "/case.json", found: "no condition of \(member.key)", expected: "condition and length")
      }
      let operation = Budget.sum(of: length, in: precision, cancellation: condition)
      errors[member.key] = (operation + Budget.relative(precision.unitRoundoff).amplified(by: condition)).relativeError(
        of: "", in: precision)
    }
    return .each(errors)
  }

  // MARK: Inputs

  /// An attribute that must be there.
  func number(_ key: String) throws -> Double {
    guard let value = attributes[key]?.doubleValue else {
      throw CheckpointError(file: path + "/case.json", found: "no number \(key)", expected: "one for \(operation)")
    }
    return value
  }

  func integer(_ key: String) throws -> Int { Int(try number(key)) }

  /// An input that must be there.
  func input(_ key: String) throws -> NamedTensors.Element {
    guard let tensor = inputs[key] else {
      throw CheckpointError(file: path + "/inputs.safetensors", found: "no tensor \(key)", expected: "one for \(operation)")
    }
    return tensor
  }

  func integers(_ key: String) throws -> [Int32] { try input(key).values.map { Int32($0) } }
}
