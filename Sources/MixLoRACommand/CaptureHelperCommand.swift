import ArgumentParser
import CEmbedded

/// The Python files that record another program's run; they lie in the program itself.
enum CaptureHelper: String, ExpressibleByArgument, CaseIterable {
  /// Walks the modules of a PyTorch model.
  case torch
  /// Takes arrays by hand.
  case numpy

  /// The file's text.
  var text: String {
    for index in 0..<capture_helper_count() {
      let file = capture_helper_at(index)
      guard String(cString: file.name) == rawValue else { continue }
      return String(decoding: UnsafeBufferPointer(start: file.bytes, count: file.size), as: UTF8.self)
    }
    preconditionFailure("the helper for \(rawValue) was not put into the program")
  }
}

/// Prints a Python file that records a run of another program for `compare`.
struct CaptureHelperCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "capture-helper",
    abstract: "Print a Python file that records a run of another program under trace's names.",
    discussion: """
      torch: walks the modules of a model (Hugging Face, PEFT, MoE-PEFT, one's own) and records activations, their gradients, \
      routing decisions, gradients of what is trained, losses and AdamW's steps, on CPU or GPU. numpy: records arrays that it is \
      given by hand, from whatever the program is written in. Each file needs its framework alone and says at its top how it is used.

      Examples:
        mixlora capture-helper torch > mixlora_capture_torch.py
        mixlora capture-helper numpy > mixlora_capture_numpy.py
      """)

  @Argument(help: "The framework.")
  var framework: CaptureHelper

  func run() throws { try writeOutput(framework.text) }
}
