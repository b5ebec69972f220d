import Conformance
import Foundation
import Tensors
import Testing

@Suite struct SuiteTests {
  @Test(arguments: OperationCase<NaiveBackend<Double>>.operations)
  func theDefinitionsPassInFloat64(_ operation: String) {
    let report = ConformanceReport(NaiveBackend<Double>(), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test(arguments: OperationCase<NaiveBackend<Float>>.operations.filter { $0 != "gradient" })
  func theDefinitionsPassRoundedToFloat32(_ operation: String) {
    let report = ConformanceReport(NaiveBackend<Float>(), operations: [operation])
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test func theWrapperOfTheFaultsHasNoneOfItsOwn() {
    let report = ConformanceReport(FaultyBackend<Double>())
    #expect(report.isPassed && report.notRun.isEmpty, "\(report)")
  }

  @Test func gradientChecksInFloat32AreCountedAsNotRun() {
    let report = ConformanceReport(NaiveBackend<Float>(), operations: ["gradient"])
    #expect(report.notRun.count == report.entries.count && report.notRun.count >= 15)
    #expect(!report.isPassed)
  }

  @Test(arguments: Fault.allCases)
  func everySeededFaultIsFoundByEachOfItsOperations(_ fault: Fault) {
    let backend = FaultyBackend<Double>(fault)
    for operation in fault.operations {
      let cases = OperationCase<FaultyBackend<Double>>.all.filter { $0.operation == operation }
      #expect(cases.contains { $0.run(backend).isFailed }, "\(fault) passes \(cases.count) cases of \(operation)")
    }
  }

  // MARK: Against the protocol itself

  /// The names of the functions that `Backend` requires, one for each overload.
  static func requirements(file: String = #filePath) throws -> [String] {
    let root = URL(filePath: file).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let text = try String(contentsOf: root.appending(path: "Sources/Tensors/Backend.swift"), encoding: .utf8)
    let body = try #require(text.components(separatedBy: "public protocol Backend").last?.components(separatedBy: "\n}").first)
    return body.components(separatedBy: "\n  func ").dropFirst().map { String($0.prefix { $0 != "(" }) }
  }

  /// The cases' names of an operation and its overloads: `copy`, `copyInto`, `copyRows`.
  static func operations(of requirement: String, _ all: [String], _ requirements: Set<String>) -> [String] {
    all.filter { name in
      name == requirement
        || name.hasPrefix(requirement) && name.dropFirst(requirement.count).first?.isUppercase == true && !requirements.contains(name)
    }
  }

  @Test func everyOperationOfTheProtocolHasCases() throws {
    let requirements = try Self.requirements()
    #expect(requirements.count > 40, "the protocol was not read: \(requirements)")
    let operations = OperationCase<NaiveBackend<Double>>.operations
    for name in Set(requirements) {
      let overloads = requirements.filter { $0 == name }.count
      let found = Self.operations(of: name, operations, Set(requirements))
      #expect(found.contains(name) && found.count >= overloads, "\(name) has \(overloads) forms, cases for \(found)")
    }
    for name in ["NaN", "repetition", "gradient", "sharing", "counters"] { #expect(operations.contains(name), "no case of \(name)") }
  }

  /// Each operation in turn gets the last element of all that it gives wrong, and its own cases must see it.
  @Test func aWrongElementIsFoundInEveryOperation() throws {
    // Neither what a fresh tensor contains nor what `endWarmUp` does to a pool is a value.
    let requirements = Set(try Self.requirements()).subtracting(["empty", "endWarmUp"])
    let all = OperationCase<FaultyBackend<Double>>.all
    for name in requirements.sorted() {
      let backend = FaultyBackend<Double>(wrongIn: name)
      let cases = all.filter { $0.operation == name }
      #expect(cases.contains { $0.run(backend).isFailed }, "a wrong \(name) passes its \(cases.count) cases")
    }
  }

  @Test func noTwoCasesShareAName() {
    let names = OperationCase<NaiveBackend<Double>>.all.map(\.name)
    #expect(Set(names).count == names.count)
  }

  @Test func floatAgreesWithDoubleToRounding() {
    let report = ConformanceReport(NaiveBackend<Float>(), against: NaiveBackend<Double>())
    #expect(report.isPassed && report.entries.count == 4, "\(report)")
  }

  @Test(arguments: [Fault.rmsNormBackwardWithoutMean, .ropePairsNeighbours, .weightsNotRenormalized, .crossEntropyIgnoresScale])
  func floatWithAFaultDisagreesWithDouble(_ fault: Fault) {
    let report = ConformanceReport(FaultyBackend<Float>(fault), against: NaiveBackend<Double>())
    #expect(!report.failed.isEmpty, "\(fault) passes")
  }
}
