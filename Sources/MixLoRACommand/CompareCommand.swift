import ArgumentParser
import CPUBackend
import Checkpoints
import Comparison
import Conformance
import Decoders
import Layers
import Platform
import Tensors

/// Judges another program's numbers.
struct CompareCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare",
    abstract: "Judge another program's numbers: which operation went wrong first, and whether it is rounding.")

  @Argument(help: ArgumentHelp("The candidate, after a reference where there is no --model.", valueName: "files"))
  var files: [String]

  @Option(help: ArgumentHelp("Hugging Face folder or GGUF file: the float64 oracle runs itself.", valueName: "path"))
  var model: String?

  @Option(help: ArgumentHelp("Adapter folder. May repeat.", valueName: "folder"))
  var adapter: [String] = []

  @Option(help: ArgumentHelp("The batch that the candidate ran.", valueName: "file"))
  var batch: String?

  @Flag(help: "Print a JSON object a line.")
  var json = false

  @OptionGroup var common: CommonOptions

  func run() throws {
    let comparison = Comparison(model: model!, adapters: adapter, batch: batch!)
    let report = try comparison.report(of: files[0], on: CPUDouble(threads: common.threadCount)) { writeError($0 + "\n") }
    for t in report.tensors {
      print("\(t.verdict) \(t.phase) \(t.name) err \(t.error) bud \(t.budget) local \(t.localError ?? -1) lb \(t.localBudget ?? -1) ratio \((t.localBudget ?? 0)/(t.localError ?? 1))")
    }
    for cause in report.causes { print("CAUSE", cause.name, cause.remaining, cause.text) }
    print("first", report.first?.name ?? "-", report.routing.map { "\($0.decisions) \($0.flips) \($0.explained)" } ?? "", report.unknown.prefix(5), report.missing.prefix(5), report.notes)
  }
}
