import ArgumentParser
import Checkpoints
import Decoders
import Explaining
import Generation
import Layers
import Platform
import Stepping
import Tensors
import Tokenization
import Traces
import Training

/// A run as a page for a browser.
struct ExplainCommand: ComputingCommand {
  static let configuration = CommandConfiguration(
    commandName: "explain",
    abstract: "Write one page for a browser that shows a run number by number, forward and backward.",
    usage: """
      mixlora explain --out <file> [--prompt <text> [--answer <text>]] [<options>]
      mixlora explain --out <file> --model <path> [--adapter <folder>] --prompt <text> [--answer <text>] [<options>]
      mixlora explain --out <file> --model <path> [--adapter <folder>] --batch <file> [<options>]
      """,
    discussion: """
      Runs a batch forward and backward and makes one step of AdamW, in float32 as trace does, and writes a page that needs no \
      server, no network and no other file: the model, its layers, experts and tensors; of every number the terms that it is the \
      sum or product of, as step's why has them; which expert computes which token; and how the experts' load came about, where \
      the adapter's folder has a metrics.jsonl.

      Without --model it is the demo's base model with a small MixLoRA adapter, which learns the demo's tasks for --steps steps \
      before. With --answer the loss counts the answer's tokens, else every token of the prompt but the first.

      The page has at most --size bytes. Parts are put in one after the other, each whole or not at all: routing; values outside \
      of layers; logits; values of layers with their gradients; trained weights; their gradients; embedding and head; frozen \
      weights; moments and values after the step. Of each part the first layer comes first, then the last, then the others; \
      layers that --layers names come before everything else. What had no room the page lists, and --json counts.

      Examples:
        mixlora explain --out explain.html
        mixlora explain --out p.html --prompt 'swap: k d ->' --answer ' d k'
        mixlora explain --out p.html --model m --adapter a --batch b.st
        mixlora explain --out p.html --model m --adapter a \\
          --prompt 'The capital of France is' --layers 0,29 --size 60M
      """)

  @Option(help: ArgumentHelp("Where to write the page.", valueName: "file"))
  var out: String

  @OptionGroup var input: RunOptions

  @Option(help: ArgumentHelp("Text to run, as generate reads it.", valueName: "text"))
  var prompt: String?

  @Option(help: ArgumentHelp("What should follow the prompt: text whose tokens the loss counts.", valueName: "text"))
  var answer: String?

  @Option(help: ArgumentHelp("Steps that the demo's adapter learns (default: 200).", valueName: "n"))
  var steps: Int?

  @Option(help: ArgumentHelp("Layers that come before everything else, as in 0,3.", valueName: "list"))
  var layers: NumberList?

  @Option(
    help:
      "Bytes that the page may have, as in 800K or 1.5M (default: \(ByteCount(usualSize)); K, M, G, T: powers of 1000; KiB to TiB: of 1024).",
    transform: ByteCount.init)
  var size = ByteCount(Self.usualSize)
  static let usualSize = 5_000_000

  @Option(help: "How the experts are computed; equal up to rounding.")
  var evaluation = ExpertEvaluation.sharedBase

  @Flag(help: "Print one JSON object.")
  var json = false

  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  func validate() throws {
    if input.model == nil, input.batch != nil || !input.adapter.isEmpty {
      throw ValidationError("Missing expected argument '--model <path>'")
    }
    if input.model != nil {
      guard prompt != nil || input.batch != nil else {
        throw ValidationError("Missing expected argument '--prompt <text>' or '--batch <file>'")
      }
      guard steps == nil else { throw ValidationError("--steps goes with the demo's model, without --model.") }
    }
    guard prompt == nil || input.batch == nil else {
      throw ValidationError("--prompt and --batch are two ways to say what runs; expected one.")
    }
    guard answer == nil || prompt != nil else { throw ValidationError("--answer goes with --prompt.") }
    guard input.adapter.count <= 1 else { throw ValidationError("--adapter is given \(input.adapter.count) times; a page shows one.") }
    if let steps, steps < 1 { throw ValidationError("--steps is \(steps), expected at least 1.") }
    do { try ExplorerPage.check(limit: size.bytes) } catch { throw ValidationError("--size: \(error).") }
  }

  func run() throws { try compute() }

  func compute<B: ProfilingBackend>(on backend: B) throws {
    let start = POSIX.seconds
    try input.requireSafeOutput(out)
    try AtomicFile.check(out)
    let explained = try input.model.map { try ExplainedRun(self, model: $0, on: backend) } ?? ExplainedRun(demo: self, on: backend)
    let count = explained.decoder.configuration.layers
    if let layer = layers?.values.first(where: { !(0..<count).contains($0) }) {
      throw UsageError("--layers names \(layer), expected layers from 0 to \(count - 1), which the model has.")
    }
    let run = try RecordedRun(explained.decoder, explained.batch, in: Machine.temporaryFolder, on: backend)
    if let name = run.firstNonFinite { writeNotes(["\(name) is the first tensor with a value that is not finite"]) }
    let page: ExplorerPage
    do { page = try ExplorerPage(of: run, explained.subject, layers: layers?.values ?? [], limit: size.bytes) } catch let error
      as PageTooSmall
    {
      throw UsageError("--size: \(error).")
    }
    try AtomicFile.write(page.html, to: out)
    let loss = run.values(of: "loss").first
    print(json ? try report(page, loss, POSIX.seconds - start).serialized() : text(page, loss))
  }

  private func text(_ page: ExplorerPage, _ loss: Double?) -> String {
    let missing = page.leftOut.reduce(0) { $0 + $1.tensors }
    let left = missing == 0 ? "" : "; \(missing) had no room, which the page lists"
    return "\(out): \(page.html.count) bytes, \(page.tensors - missing) of \(page.tensors) tensors and weights\(left)"
      + (loss.map { "; loss \(significant($0))" } ?? "")
  }

  private func report(_ page: ExplorerPage, _ loss: Double?, _ seconds: Double) throws -> JSON {
    let left = page.leftOut.map { part in
      [
        "part": JSON(part.part.rawValue), "layer": part.layer.map { JSON($0) } ?? .null, "tensors": JSON(part.tensors),
        "numbers": JSON(part.numbers),
      ] as JSON
    }
    return [
      "file": JSON(try Folder.absolute(out)), "bytes": JSON(page.html.count), "tensors": JSON(page.tensors), "left_out": .array(left),
      "loss": loss.map { JSON(Float($0)) } ?? .null, "seconds": JSON(seconds),
    ]
  }
}
