import ArgumentParser
import Decoders
import Layers
import Samples
import Tokenization
import Training

/// The arithmetic of a run.
enum Precision: String, ExpressibleByArgument, CaseIterable {
  case float32
  case float64
}

extension AdapterConfiguration.Initialization: ExpressibleByArgument {}
extension BalanceLossForm: ExpressibleByArgument {}
extension EncodedSample.LossColumns: ExpressibleByArgument {}
extension ExpertEvaluation: ExpressibleByArgument {}
extension LearningRateSchedule: ExpressibleByArgument {}
extension PromptTemplate: ExpressibleByArgument {}
extension SampleEncoding.TooLong: ExpressibleByArgument {}
extension TrainingRecipe.Method: ExpressibleByArgument {}
extension TrainingRecipe.OptimizerName: ExpressibleByArgument {}

/// An option's value that knows whether it was given: the parser alone does not tell a default from a value.
struct Setting<Value: ExpressibleByArgument & Sendable>: ExpressibleByArgument, Sendable {
  /// What was given, else the default.
  let value: Value
  /// Whether the option stands on the command line.
  let isGiven: Bool

  /// An option with a default.
  init(_ value: Value) { (self.value, isGiven) = (value, false) }

  init?(argument: String) {
    guard let value = Value(argument: argument) else { return nil }
    (self.value, isGiven) = (value, true)
  }

  /// Puts a value that was given in the place of another.
  func override(_ value: inout Value) { if isGiven { value = self.value } }

  var defaultValueDescription: String { value.defaultValueDescription }
  static var allValueStrings: [String] { Value.allValueStrings }
  static var allValueDescriptions: [String: String] { Value.allValueDescriptions }
  static var defaultCompletionKind: CompletionKind { Value.defaultCompletionKind }
}

/// A number of bytes: `800K`, `60M`, `1.5G` in powers of ten, `100MiB` in powers of two.
struct ByteCount: CustomStringConvertible, Sendable {
  let bytes: Int

  init(_ bytes: Int) { self.bytes = bytes }

  init(_ text: String) throws {
    let number = text.prefix { $0.isNumber || $0 == "." }
    let units = ["": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KiB": 0x1p10, "MiB": 0x1p20, "GiB": 0x1p30, "TiB": 0x1p40]
    guard let unit = units[String(text.dropFirst(number.count))],
      let bytes = Double(number).flatMap({ Int(exactly: ($0 * unit).rounded()) }),
      bytes > 0
    else {
      throw ValidationError("expected bytes as 800000, 600M or 1.5G, with K, M, G, T for powers of 1000 or KiB, MiB, GiB, TiB of 1024.")
    }
    self.bytes = bytes
  }

  var description: String { bytes % 1_000_000 == 0 ? "\(bytes / 1_000_000)M" : "\(bytes)" }
}

/// Numbers, separated by commas.
struct NumberList: ExpressibleByArgument, Sendable {
  let values: [Int]

  init?(argument: String) {
    let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
    guard !parts.contains(nil) else { return nil }
    values = parts.compactMap { $0 }
  }
}

/// Refuses numbers out of range, each by its option.
func requireRange(_ options: KeyValuePairs<String, Int>, _ range: ClosedRange<Int> = 1...1_000_000) throws {
  for (name, value) in options where !range.contains(value) {
    throw ValidationError("\(name) is \(value), expected \(range.lowerBound) to \(range.upperBound).")
  }
}

/// Runs a check of the libraries as one of the parser's: a setting is called by the option that stands for it.
func validating<Result>(_ body: () throws -> Result) throws -> Result {
  do { return try body() } catch let error as SettingsError { throw ValidationError(error.text.option) }
}

extension SettingsText {
  /// The sentence with settings as options: `--batch`.
  var option: String { text { "--" + $0.name } }
}
