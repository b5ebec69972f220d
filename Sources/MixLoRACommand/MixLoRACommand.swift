import ArgumentParser

/// The command line of MixLoRA: a file or a folder for each command, `Options` for what several share.
struct MixLoRACommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mixlora",
    abstract: "MixLoRA (arXiv 2404.15159) in Swift: a golden reference for mixtures of low-rank experts.",
    discussion: """
      Exit codes: 0 ok · 1 mismatch · 2 usage · 3 an input is missing or wrong, or asks for a feature not built yet · \
      4 numerical failure · 5 the system failed while reading or writing · 130 interrupted.
      """,
    version: version,
    subcommands: [
      DemoCommand.self, TrainCommand.self, EvaluateCommand.self, GenerateCommand.self, ChatCommand.self, TraceCommand.self,
      StepCommand.self, ExplainCommand.self, CompareCommand.self, CaptureHelperCommand.self, TokenizeCommand.self, InspectCommand.self,
      ConvertCommand.self,
      BenchCommand.self, DoctorCommand.self,
    ])
}

/// The version that `--version` prints.
let version = "0.1.0"
