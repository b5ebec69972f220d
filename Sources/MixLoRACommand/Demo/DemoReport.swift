import Checkpoints
import Evaluation
import Platform
import Training

/// What the demo shows at its end: as text, as one page, as a line for machines.
struct DemoReport {
  let tasks: [Demo.Task]
  /// Base model, plain LoRA, MixLoRA.
  let outcomes: [Demo.Outcome]
  let out: String
  let options: DemoCommand
  let seconds: Double

  private var mixture: Demo.Outcome { outcomes[outcomes.count - 1] }
  private var names: [String] { tasks.map(\.name) }
  private func mean(_ outcome: Demo.Outcome) -> Double { outcome.results.reduce(0) { $0 + $1.accuracy } / Double(outcome.results.count) }

  /// How differently the tasks use the experts: for each layer the mean over the tasks of the total variation distance
  /// between the task's shares and the mean of all tasks, ½ Σ_e |share_e − mean_e|; then the mean over the layers.
  /// 0 if all tasks use the experts alike.
  var specialization: Double {
    let loads = mixture.results.map(\.expertLoad)
    guard let layers = loads.first?.count, layers > 0 else { return 0 }
    var sum = 0.0
    for layer in 0..<layers {
      for expert in loads[0][layer].indices {
        let mean = loads.reduce(0) { $0 + $1[layer][expert] } / Double(loads.count)
        sum += loads.reduce(0) { $0 + abs($1[layer][expert] - mean) } / 2
      }
    }
    return sum / Double(layers * loads.count)
  }

  // MARK: For a person at a terminal

  var text: String {
    """

    Exact answers to \(tasks[0].questions.count) new questions of each task
    \(accuracyTable)

    Who computes what: MixLoRA's experts by task (darker: a larger share of the task's tokens)
    \(heatMap)
    \(percent(specialization)) of a task's tokens go elsewhere than those of all tasks together (0 %: every task asks the same experts)

    \(sampleTable)

    \(fixed(seconds, 0)) s. Look at \(out)/report.html. Go on with
      \(commands.joined(separator: "\n  "))
    (the last is the very run that was made here)
    """
  }

  /// What one may do next, by the name that this program was called by.
  private var commands: [String] {
    let recipe = DemoSettings.recipe(.mixlora, folder: out, steps: options.steps, seed: options.seed)
    let program = CommandLine.arguments[0]
    return [
      "\(program) generate --model \(out)/base --adapter \(out)/mixlora --prompt '\(tasks[0].prompt)'",
      "\(program) inspect \(out)/mixlora --stats",
      "\(program) explain --out explain.html --model \(out)/base --adapter \(out)/mixlora --prompt '\(tasks[0].prompt)' --answer '\(tasks[0].answer)'",
      "\(program) train \(recipe.options) --save-every \(recipe.saveEvery) --out \(out)/again",
    ]
  }

  private var accuracyTable: String {
    var lines = [pad("", 12) + outcomes.map { pad($0.name, 10) }.joined()]
    for (t, task) in tasks.enumerated() {
      lines.append(pad(task.name, 12) + outcomes.map { pad(percent($0.results[t].accuracy), 10) }.joined())
    }
    lines.append(pad("mean", 12) + outcomes.map { pad(percent(mean($0)), 10) }.joined())
    lines.append(
      pad("trained", 12) + outcomes.map { pad($0.parameters == 0 ? "–" : "\($0.parameters)", 10) }.joined() + "parameters")
    return table(lines)
  }

  /// A row a task, a block of E cells a layer.
  private var heatMap: String {
    let shades = [" ", "░", "▒", "▓", "█"]
    let layers = mixture.results[0].expertLoad
    var lines = [pad("", 12) + layers.indices.map { pad("layer \($0)", 2 * layers[$0].count + 2) }.joined()]
    for (task, result) in zip(tasks, mixture.results) {
      let blocks = result.expertLoad.map { layer in
        // Empty below half of the uniform share, full from two and a half times it.
        layer.map { share in
          let shade = shades[max(0, min(4, Int((2 * share * Double(layer.count)).rounded(.down))))]
          return shade + shade
        }.joined()
      }
      lines.append(pad(task.name, 12) + blocks.joined(separator: "  "))
    }
    return table(lines)
  }

  private var sampleTable: String {
    let width = 2 + (tasks.map(\.prompt.count).max() ?? 0)
    let answers = [tasks.map(\.answer)] + outcomes.map(\.samples)
    let widths = answers.map { column in 2 + (column.map(\.count).max() ?? 0) }
    let heads = ["expected"] + outcomes.map(\.name)
    var lines = [pad("", width) + zip(heads, widths).map { pad($0, max($1, $0.count + 2)) }.joined()]
    for t in tasks.indices {
      lines.append(
        pad(tasks[t].prompt, width)
          + answers.indices.map { pad(trimmed(answers[$0][t]), max(widths[$0], heads[$0].count + 2)) }.joined())
    }
    return table(lines)
  }

  /// Lines without blanks at their ends.
  private func table(_ lines: [String]) -> String {
    lines.map { String($0.reversed().drop { $0 == " " }.reversed()) }.joined(separator: "\n")
  }
  private func trimmed(_ text: String) -> String { String(text.drop { $0 == " " }) }
  private func percent(_ share: Double) -> String { fixed(100 * share, 1) + " %" }

  // MARK: For a machine

  func json() throws -> JSON {
    var accuracies = JSON.Object()
    for (t, task) in tasks.enumerated() {
      var one = JSON.Object()
      for (key, outcome) in zip(["base", "lora", "mixlora"], outcomes) { one[key] = JSON(outcome.results[t].accuracy) }
      accuracies[task.name] = .object(one)
    }
    let folder = try Folder.absolute(out)
    return [
      "tasks": .object(accuracies),
      "trainable_parameters": ["lora": JSON(outcomes[1].parameters), "mixlora": JSON(mixture.parameters)],
      "seconds": JSON(seconds), "files": .array(files.map { JSON(folder + "/" + $0) }),
    ]
  }

  /// Everything of interest below the folder.
  private var files: [String] {
    ["report.html", "base", "data/train.jsonl", "data/test.jsonl"]
      + ["lora", "mixlora"].flatMap { method in
        ["adapter_config.json", "adapter_model.safetensors", "metrics.jsonl", "loss.svg", "experts.svg"].map { "\(method)/\($0)" }
      } + ["accuracy.svg", "loss.svg", "experts.svg"]
  }

  // MARK: For the browser

  private var accuracyPicture: String {
    Charts.accuracies(
      names, outcomes.map { Charts.Series(name: $0.name, color: $0.color, values: $0.results.map(\.accuracy)) })
  }
  private var lossPicture: String {
    Charts.losses(outcomes.dropFirst().map { Charts.Series(name: $0.name, color: $0.color, values: $0.losses) })
  }
  private var routingPicture: String { Charts.routing(names, mixture.results.map(\.expertLoad)) }

  /// The pictures, and one page that holds them.
  func writeFiles() throws {
    try AtomicFile.write(accuracyPicture, to: out + "/accuracy.svg")
    try AtomicFile.write(lossPicture, to: out + "/loss.svg")
    try AtomicFile.write(routingPicture, to: out + "/experts.svg")
    try AtomicFile.write(page, to: out + "/report.html")
  }

  private var page: String {
    """
    <!doctype html>
    <html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
    <title>MixLoRA demo</title>
    <style>
    body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
    svg { max-width: 100%; height: auto } table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: left }
    code, td.text { font-family: ui-monospace, monospace; font-size: .85rem } pre { overflow-x: auto; background: #f5f6f8; padding: .6rem }
    .wrong { color: #b3261e }
    </style>
    <h1>Six tasks, one run</h1>
    <p>A base model of four layers was taught six tasks together: once by <b>MixLoRA</b>
    (\(DemoSettings.experts) experts of rank \(DemoSettings.rank) in every feed-forward block, \(DemoSettings.expertsPerToken) a token;
    \(mixture.parameters) trained parameters), once by <b>plain LoRA</b> (rank \(DemoSettings.plainRank); \(outcomes[1].parameters)
    trained parameters). Same data, \(options.steps) steps of \(DemoSettings.batch) samples, seed \(options.seed). The bars count
    exact answers to \(tasks[0].questions.count) questions a task that neither has seen; their means are
    \(outcomes.map { "\(percent(mean($0))) (\($0.name))" }.joined(separator: ", ")).</p>
    \(accuracyPicture)
    <h2>Loss</h2>
    \(lossPicture)
    <h2>Which expert takes which task</h2>
    <p>The router was told nothing about tasks. On average \(percent(specialization)) of a
    task's tokens go elsewhere than those of all tasks together.</p>
    \(routingPicture)
    <h2>Answers</h2>
    <table><tr><th>question<th>expected\(outcomes.map { "<th>\($0.name)" }.joined())</tr>
    \(tasks.indices.map(answerRow).joined(separator: "\n"))
    </table>
    <h2>Go on</h2>
    <pre>\(commands.map(escaped).joined(separator: "\n"))</pre>
    </html>

    """
  }

  private func answerRow(_ t: Int) -> String {
    let expected = tasks[t].answer
    let cells = outcomes.map { outcome in
      "<td class=\"text\(outcome.samples[t] == expected ? "" : " wrong")\">\(escaped(outcome.samples[t]))"
    }
    return "<tr><td class=\"text\">\(escaped(tasks[t].prompt))<td class=\"text\">\(escaped(expected))\(cells.joined())</tr>"
  }

  private func escaped(_ text: String) -> String {
    text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
  }
}

extension TrainingRecipe {
  /// The options of `mixlora train` that make this recipe, as a person would give them: those that are not the default.
  fileprivate var options: String {
    let defaults = TrainingRecipe().json
    return (json.objectValue?.members ?? []).compactMap { member in
      guard member.value != .null, member.value != defaults[member.key] else { return nil }
      return "--\(member.key)" + (member.value == true ? "" : " " + (member.value.stringValue ?? member.value.serialized()))
    }.joined(separator: " ")
  }
}
