import ArgumentParser
import CPUBackend
import Checkpoints
import Comparison
import Conformance
import Layers
import Platform

/// Judges another program's numbers, operation by operation.
struct CompareCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare",
    abstract: "Judge another program's numbers: which operation went wrong first, is it rounding, what is it probably.",
    usage: """
      mixlora compare --model <path> --batch <file> [<options>] <candidate>
      mixlora compare [<options>] <reference> <candidate>
      """,
    discussion: """
      With --model the float64 oracle runs the batch itself, once more with the candidate's own numbers in the place of its own, and in \
      the candidate's precision for what rounding explains. So every operation is judged on the inputs that the candidate gave it, \
      and the first wrong one is named. Without it two files are compared tensor by tensor.

      The candidate has tensors under the names of `mixlora trace` (`trace --list` prints them), or as Hugging Face, PEFT, MoE-PEFT and \
      GGUF files spell them: a safetensors file or a folder of them, .npz, a folder of .npy, or a PyTorch file of a flat dictionary. \
      `mixlora capture-helper torch` prints what records a PyTorch model so. Whatever it has is judged; gradients, and as many optimizer \
      steps as its loss_curve is long, run where it has them, with the lr and weight_decay that its metadata names; --lr and \
      --weight-decay override these.

      Exit status: 0 if everything agrees, or differs only because a routing decision fell the other way within rounding; 1 otherwise.

      Examples:
        mixlora compare --model m --adapter a --batch b.st mine.safetensors
        mixlora compare --model m --adapter a --batch b.st mine.npz \\
          --html report.html --gen-test fix
        mixlora compare golden.safetensors mine.safetensors \\
          --map 'net\\.(\\d+)\\.out=model.layers.$1.output'
      """)

  @Argument(help: ArgumentHelp("The candidate; in front of it a reference where there is no --model.", valueName: "file"))
  var files: [String]

  @OptionGroup var input: RunOptions

  @Option(help: ArgumentHelp("AdamW steps that the candidate made; default: as many as its loss_curve is long.", valueName: "n"))
  var steps: Int?

  @OptionGroup var step: StepOptions

  @Option(help: "What the candidate computes in: auto (the lowest that a tensor is stored in), float64, float32, bfloat16 or float16.")
  var precision = "auto"

  @Option(help: "What errors are held against: budget, reference-ratio, ulp, allclose or exact.")
  var mode = ComparisonRequest.Mode.budget

  @Option(help: "rtol of allclose (1e-5); the units of ulp (4); the ratio of reference-ratio (2).")
  var rtol: Double?

  @Option(help: "atol of allclose (1e-8).")
  var atol: Double?

  @Option(help: ArgumentHelp("Names that match mean NAME; $1 is the first group. May repeat.", valueName: "regex=name"))
  var map: [String] = []

  @Option(help: ArgumentHelp("Compare only names that match. May repeat.", valueName: "pattern"))
  var only: [String] = []

  @Option(help: ArgumentHelp("Leave out names that match. May repeat.", valueName: "pattern"))
  var ignore: [String] = []

  @Flag(help: "Run the oracle with the candidate's routing decisions from the start.")
  var replayRouting = false

  @Option(help: ArgumentHelp("Write the report as one HTML page.", valueName: "file"))
  var html: String?

  @Option(help: ArgumentHelp("Write the report as JUnit XML.", valueName: "file"))
  var junit: String?

  @Option(help: ArgumentHelp("Write the first wrong operation with its inputs as a Swift package with one test.", valueName: "folder"))
  var genTest: String?

  @Flag(help: "Print a JSON object a line.")
  var json = false

  @OptionGroup var common: CommonOptions

  func validate() throws {
    if input.model != nil {
      guard files.count == 1 else { throw ValidationError("\(counted(files.count, "file")), expected the candidate alone beside --model.") }
      guard input.batch != nil else { throw ValidationError("--model needs --batch, what the candidate ran.") }
    } else {
      guard files.count == 2 else {
        throw ValidationError("\(counted(files.count, "file")), expected a reference and a candidate, or --model and --batch.")
      }
      let given = [
        (input.batch != nil, "--batch"), (!input.adapter.isEmpty, "--adapter"), (steps != nil, "--steps"),
        (replayRouting, "--replay-routing"),
        (genTest != nil, "--gen-test"), (step.lr.isGiven, "--lr"),
        (step.weightDecay.isGiven, "--weight-decay"),
      ]
      if let flag = given.first(where: \.0)?.1 { throw ValidationError("\(flag) goes with --model.") }
    }
    guard precision == "auto" || Conformance.Precision(rawValue: precision) != nil else {
      throw ValidationError("--precision is '\(precision)', expected auto, float64, float32, bfloat16 or float16.")
    }
    for (name, value) in [("--rtol", rtol), ("--atol", atol)] {
      if let value, !value.isFinite || value < 0 { throw ValidationError("\(name) is \(value), expected a number ≥ 0.") }
    }
    if let steps, steps < 0 { throw ValidationError("--steps is \(steps), expected at least 0.") }
    do { _ = try rules() } catch let error as CandidateNames.RuleError { throw ValidationError("\(error)") }
  }

  func run() throws {
    for path in [html, junit].compactMap({ $0 }) { try AtomicFile.check(path) }
    let start = ContinuousClock.now
    let (report, failing): (ComparisonReport, FailingOperation?)
    do { (report, failing) = try compared() } catch let error as CandidateNames.RuleError { throw UsageError("\(error)") }
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    if let html { try AtomicFile.write(report.html, to: html) }
    if let junit { try AtomicFile.write(report.junit(seconds: seconds), to: junit) }
    if let genTest, let failing { try GeneratedTest.write(failing, to: genTest) }
    if let genTest, failing == nil {
      writeNotes([
        report.first.map { "\(genTest) was not written: no single operation forms \($0.name) of numbers" }
          ?? "\(genTest) was not written: no operation is wrong"
      ])
    }
    if json {
      for line in report.jsonLines { print(line) }
    } else {
      print(report.text(color: ComparisonReport.colorsOutput), terminator: "")
      if let genTest, failing != nil { print("test       \(genTest): swift test") }
    }
    if !report.matches { throw ExitCode(1) }
  }

  private func rules() throws -> [CandidateNames.Rule] { try map.map { try CandidateNames.Rule($0) } }

  private func compared() throws -> (ComparisonReport, FailingOperation?) {
    var request = ComparisonRequest()
    request.precision = Conformance.Precision(rawValue: precision)
    (request.mode, request.relative, request.absolute) = (mode, rtol, atol)
    (request.replaysRouting, request.steps, request.only, request.ignore) = (replayRouting, steps, only, ignore)
    if step.lr.isGiven { request.learningRate = step.lr.value }
    if step.weightDecay.isGiven { request.weightDecay = step.weightDecay.value }
    let isQuiet = common.quiet || !POSIX.isTerminal(.standardError)
    defer { if !isQuiet { writeError("\r\u{1B}[K") } }
    guard let model = input.model, let batch = input.batch else {
      let report = try Comparison.report(of: files[1], reference: files[0], rules: rules(), request: request) { done, all in
        if !isQuiet, done % 16 == 0 { writeError("\r\u{1B}[K\(done) of \(all) tensors") }
      }
      return (report, nil)
    }
    var comparison = Comparison(model: model, adapters: input.adapter, batch: batch)
    (comparison.rules, comparison.request, comparison.balanceLoss) = (try rules(), request, input.routerLoss)
    var failing: FailingOperation?
    let report = try comparison.report(
      of: files[0], on: CPUDouble(threads: common.threadCount), progress: { if !isQuiet { writeError("\r\u{1B}[K\($0)") } },
      failing: { failing = $0 })
    return (report, failing)
  }
}

extension ComparisonRequest.Mode: ExpressibleByArgument {}
