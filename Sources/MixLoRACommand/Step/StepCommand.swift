import ArgumentParser
import Checkpoints
import Decoders
import Layers
import Platform
import Stepping
import Tensors
import Traces

/// A walk through a run, number by number.
struct StepCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "step",
    abstract: "Walk through forward, backward and a step of AdamW, and ask of any number where it comes from.",
    usage: """
      mixlora step [<options>]
      mixlora step --model <path> --batch <file> [<options>]
      """,
    discussion: """
      Runs a batch once, as trace does, and keeps every tensor. Without --model it is the demo's base model with a small \
      MixLoRA adapter and two of the demo's tasks, all of which lie in the program.

      Commands: next [N], back [N] (by the unit that into and out choose: model, block, layer, operation), goto NAME, where, \
      list [GLOB], print NAME[i,j], why NAME[i,j], patch NAME[i,j] VALUE, unpatch, diff, help, quit. An index counts from 0; \
      of a tensor (B,T,C) it is [b,t,c], or [i,c] with i = b·T + t.

      With --script the commands come from a file, or from standard input (-), a line each; # begins a comment. The output \
      then has all digits and is the same every time, and a command that cannot be carried out ends with exit code 2.

      Examples:
        mixlora step
        mixlora step --model m --adapter a --batch b.st
        echo 'why loss' | mixlora step --script -
      """)

  @OptionGroup var input: RunOptions

  @Option(help: "Precision: float64 or float32.")
  var dtype = Precision.float64

  @OptionGroup var step: StepOptions

  @Option(help: "How the experts are computed; equal up to rounding.")
  var evaluation = ExpertEvaluation.sharedBase

  @Option(help: ArgumentHelp("Commands from a file, or - for standard input.", valueName: "file"))
  var script: String?

  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  func validate() throws {
    if input.model == nil, input.batch != nil || !input.adapter.isEmpty {
      throw ValidationError("Missing expected argument '--model <path>'")
    }
    if input.model != nil, input.batch == nil { throw ValidationError("Missing expected argument '--batch <file>'") }
  }

  func run() throws { try compute(in: dtype) }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    let (decoder, tokens) = try opened(on: backend)
    var numbers = OptimizerNumbers()
    (numbers.learningRate, numbers.weightDecay) = (step.lr.value, step.weightDecay.value)
    let isTalking = script == nil && POSIX.isTerminal(.standardInput) && POSIX.isTerminal(.standardOutput)
    let stepper = try Stepper(decoder, tokens, optimizer: numbers, digits: isTalking ? 6 : nil, in: Machine.temporaryFolder, on: backend)
    if let name = stepper.firstNonFinite { writeNotes(["\(name) is the first tensor with a value that is not finite"]) }
    if isTalking { try talk(stepper) } else { try play(stepper) }
  }

  private func opened<B: Backend>(on backend: B) throws -> (Decoder<B>, TraceBatch) {
    guard let model = input.model, let batch = input.batch else {
      return try StepLesson.open(evaluation: evaluation, balanceLoss: input.routerLoss, on: backend)
    }
    let files = try ModelFolder(model)
    let tokens = try input.read(batch, files)
    let decoder = try input.decoder(files, hasGradients: tokens.hasLabels, evaluation: evaluation, on: backend)
    try decoder.requireRows(of: tokens, batch)
    return (decoder, tokens)
  }

  // MARK: Commands

  /// Commands of a script, each answered by itself.
  private func play<B: Backend>(_ stepper: Stepper<B>) throws {
    let lines = try script.map { try $0 == "-" ? nil : textLines(of: $0) } ?? nil
    var (number, rest) = (0, lines?[...])
    while let line = rest == nil ? readLine() : rest?.popFirst() {
      number += 1
      do {
        guard case .lines(let answer) = try stepper.perform(line) else { return }
        if !answer.isEmpty { print(answer.joined(separator: "\n")) }
      } catch let error as Stepper<B>.CommandError {
        throw UsageError("line \(number): \(error)")
      }
    }
  }

  private func textLines(of path: String) throws -> [String] {
    let file = try MappedFile(path: path)
    return String(decoding: try file.bytes(in: 0..<file.size), as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
      .map(String.init)
  }

  /// Commands from a terminal; an empty line is the last one again.
  private func talk<B: Backend>(_ stepper: Stepper<B>) throws {
    print(stepper.greeting.joined(separator: "\n"))
    var last = "next"
    while true {
      writeError("> ")
      guard let line = readLine() else { break }
      let command = line.isEmpty ? last : line
      if command.hasPrefix("next") || command.hasPrefix("back") { last = command }
      do {
        guard case .lines(let answer) = try stepper.perform(command) else { break }
        if !answer.isEmpty { print(answer.joined(separator: "\n")) }
      } catch let error as Stepper<B>.CommandError { print(error) }
    }
  }
}
