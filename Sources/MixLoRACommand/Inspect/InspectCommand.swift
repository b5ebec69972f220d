import ArgumentParser
import CPUBackend
import Checkpoints
import Decoders
import Tensors

/// Says what a model, an adapter or any file of tensors holds.
struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Say what a model, an adapter or a file of tensors holds.",
    discussion: """
      PATH is a model's folder, an adapter's folder (its model is not needed), a GGUF file, or any .safetensors, .bin or \
      .safetensors.index.json. Tensors of equal shape in equal places of several layers share a line; --stats and --json give \
      every tensor a line of its own.

      --stats: min, max, mean and norm (√Σx²) over the finite elements, decoded to what they mean; nonfinite counts NaN and ±∞. \
      All five are null (a dash in the table) where the type is complex or narrower than 8 bits or an 8-bit float, the first four \
      where no element is finite.

      --json: a first line with kind (model, adapter or tensors), format (safetensors, gguf or pytorch), configuration (as it was \
      understood, defaults filled in), unknown_keys, tensors, parameters; then a line a tensor: name, dtype, shape and the \
      statistics; then, of an adapter, a line for each pair of A and B: update (the module, by the names of the file) and \
      singular_values of s·B·A, r of them in descending order (null if an element is not finite).

      Examples:
        mixlora inspect SmolLM2-135M-Instruct.Q4_1.gguf
        mixlora inspect run/checkpoint-300 --stats
        mixlora inspect trace.safetensors --json
      """)

  @Argument(help: "Model folder, adapter folder or file of tensors.")
  var path: String

  @Flag(help: "Print statistics of every tensor.")
  var stats = false

  @Flag(help: "Print one JSON object a line.")
  var json = false

  @OptionGroup var common: CommonOptions

  func run() throws {
    let inspection = try Inspection(path)
    let backend = CPUDouble(threads: common.threadCount)
    let statistics = { (entry: TensorEntry) in stats ? try inspection.statistics(of: entry) : nil }
    if json {
      print(inspection.json.serialized())
      for entry in inspection.entries { print(Inspection.json(entry, stats ? .some(try statistics(entry)) : .none).serialized()) }
      for update in inspection.updates {
        let values = try inspection.singularValues(of: update, on: backend)
        print(JSON(dictionaryLiteral: ("update", JSON(update.path)), ("singular_values", Inspection.json(values))).serialized())
      }
    } else {
      print(inspection.summary)
      let table = stats ? try inspection.table(statistics) : inspection.groupedTable
      print("\n" + table.text)
      if !inspection.updates.isEmpty { print("\n" + (try inspection.updateTable(on: backend)).text) }
    }
  }
}
