import ArgumentParser
import CPUBackend
import Checkpoints
import Decoders
import Training

extension AdapterProgram: ExpressibleByArgument {}

/// Writes an adapter as another program opens it, or merges it into its model.
struct ConvertCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "convert",
    abstract: "Write an adapter for MoE-PEFT or PEFT, or merge it into its model.",
    discussion: """
      --to moe-peft: adapter_config.json and adapter_model.bin, the only file that MoE-PEFT opens, which torch.load reads with \
      weights_only. --to peft: adapter_config.json and adapter_model.safetensors, for plain LoRA. What the program does not have is \
      refused by its key.

      --merge: a Hugging Face folder of the model --model with W + s·B·A for each layer of a plain LoRA adapter, rounded once to the \
      model's own type, in one model.safetensors; a GGUF file's weights become float32. A mixture cannot be merged.

      Examples:
        mixlora convert run --to moe-peft --out run-moe-peft
        mixlora convert --merge --model SmolLM2-135M adapter --out merged
      """)

  @Argument(help: "Folder of the adapter.")
  var adapter: String
  @Option(help: "The program to write for.")
  var to: AdapterProgram?
  @Flag(help: "Merge the adapter into its model.")
  var merge = false
  @Option(help: ArgumentHelp("With --merge: Hugging Face folder or GGUF file.", valueName: "path"))
  var model: String?
  @Option(help: ArgumentHelp("Folder to write, new or empty.", valueName: "folder"))
  var out: String
  @Flag(help: "Print one JSON object: out, tensors, notes.")
  var json = false

  @OptionGroup var common: CommonOptions

  func validate() throws {
    guard merge == (to == nil) else { throw ValidationError("convert takes one of --to and --merge.") }
    guard merge == (model != nil) else { throw ValidationError("--merge and --model go together.") }
  }

  func run() throws {
    guard Folder.names(in: out).isEmpty else { throw UsageError("--out \(out) is not empty; choose another folder.") }
    var notes: [String] = []
    let tensors: Int
    if let model {
      let files = try ModelFolder(model)
      let beside = try ModelFolder.Files(model: model)
      try Folder.create(out)
      let entries = try files.merge(adapter: adapter, beside: beside, to: out, on: CPUDouble(threads: common.threadCount))
      tensors = entries.count
      if ModelPath.isGGUF(model) { notes.append("the weights of \(model) became float32") }
    } else if let to {
      try Folder.create(out)
      notes = try AdapterFolder.convert(adapter, to: to, out: out)
      tensors = try AdapterFolder.tensors(in: out).entries.count
    } else {
      return
    }
    for note in notes { writeError("note: \(note)\n") }
    let report: JSON = ["out": JSON(try Folder.absolute(out)), "tensors": JSON(tensors), "notes": .array(notes.map { JSON($0) })]
    print(json ? report.serialized() : "\(out): \(tensors) tensors")
  }
}
