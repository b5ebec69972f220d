import CPUBackend
import Stepping
import TestModels
import Testing
import Traces

/// The commands of a walk.
@Suite struct StepperTests {
  private let stepper: Stepper<CPUDouble>
  private let run: RecordedRun<CPUDouble>

  init() throws {
    let backend = CPUDouble(threads: 1)
    let decoder = try Golden.decoder("topk", on: backend)
    stepper = try Stepper(decoder, Golden.batch("topk"), in: temporaryFolder, on: backend)
    run = try RecordedRun(decoder, Golden.batch("topk"), in: temporaryFolder, on: backend)
  }

  private func lines(_ command: String) throws -> [String] {
    guard case .lines(let lines) = try stepper.perform(command) else { return ["quit"] }
    return lines
  }

  private func place(_ command: String) throws -> String { try lines(command).first { $0.hasPrefix("[") } ?? "" }

  @Test func aWalkGoesThroughEveryTensorAndBack() throws {
    for n in 1..<run.names.count {
      let shown = try lines("next")
      #expect(shown.first?.hasPrefix("[\(n + 1)/\(run.names.count)]") == true)
      #expect(shown.dropFirst().first?.hasPrefix(run.names[n] + "  (") == true, "\(shown)")
    }
    #expect(try lines("next").first == "The run ends here.")
    #expect(try place("back 1000").hasPrefix("[1/"))
    #expect(try lines("back").first == "The run begins here.")
  }

  @Test func largerUnitsAreLayersBlocksAndPhases() throws {
    #expect(try place("goto model.layers.0.self_attn.k_proj").contains("forward · layers.0 · self_attn"))
    #expect(try place("out").hasSuffix("forward · layers.0 · self_attn  (layer)"))
    #expect(try place("next").hasSuffix("forward · layers.0 · residual  (layer)"))
    #expect(try place("out").hasSuffix("forward · layers.0  (block)"))
    #expect(try place("next").hasSuffix("forward · layers.1  (block)"))
    #expect(try place("out").hasSuffix("forward  (model)"))
    #expect(try lines("out").first?.contains("larger") == true)
    #expect(try place("next").hasSuffix("backward  (model)"))
    #expect(try place("next").hasSuffix("gradients  (model)"))
    #expect(try place("next").hasSuffix("optimizer  (model)"))
    #expect(try place("back 2").hasSuffix("backward  (model)"))
    #expect(try place("into").hasSuffix("backward · lm_head  (block)"))
  }

  @Test func aPrintedNumberIsThatOfTheRunAndSoAreItsTerms() throws {
    let name = "model.layers.0.self_attn.q_proj.output"
    let value = run.values(of: name)[(0 * (run.shape(of: name)?[1] ?? 0) + 2) * 16 + 5]
    #expect(try lines("print \(name)[0,2,5]") == ["\(name)[0,2,5] = \(value)"])
    #expect(try lines("print \(name)[2,5]") == ["\(name)[0,2,5] = \(value)"])
    let why = try lines("why \(name)[0,2,5]")
    #expect(why[0] == "\(name)[0,2,5] = \(value)")
    // Eight terms and the rest, each a number at the beginning of its line, sum up to the number.
    let terms = why.filter { $0.hasPrefix("    ") }.compactMap { Double($0.split(separator: " ")[0]) }
    #expect(terms.count == 9)
    #expect(abs(terms.reduce(0, +) - value) <= 1e-12 * abs(value))
    #expect(zip(terms, terms.dropFirst()).prefix(7).allSatisfy { abs($0) >= abs($1) })
    // And each term is the product that stands beside it.
    for line in why.filter({ $0.contains(" · ") && $0.hasPrefix("    ") }) {
      let words = line.split(separator: " ").map(String.init)
      let factors = words.dropFirst().compactMap { Double($0) }
      #expect(abs(factors.reduce(1, *) - (Double(words[0]) ?? .nan)) <= 1e-12, "\(line)")
    }
  }

  @Test(arguments: [
    "nxt", "next x", "next 0", "goto nowhere", "print a b", "print model.norm.output[", "print model.norm.output[0,0,99]", "why nowhere[0]",
    "why model.norm.output", "why model.norm.output[0]", "patch loss[0] 3", "patch model.norm.output[0,0,0] x", "list *nowhere*",
    "patch model.layers.0.mlp.moe_gate.choice[0,0,0] 9", "patch model.layers.0.mlp.moe_gate.choice[0,0,0] 0.5", "into 3", "diff all",
    "why model.norm.output[-1,0,0]", "patch model.norm.output[0,99,0] 1",
  ])
  func whatCannotBeDoneIsSaid(_ command: String) {
    #expect(throws: Stepper<CPUDouble>.CommandError.self) { try stepper.perform(command) }
  }

  @Test func whatARunReadsIsPrinted() throws {
    let weight = "model.layers.0.self_attn.q_proj.weight"
    let value = try run.weightRow(weight, 3)[5]
    #expect(try lines("print \(weight)[3,5]") == ["\(weight)[3,5] = \(value)"])
    #expect(try run.weightColumn(weight, 5)[3] == value)
    #expect(try lines("print \(weight)").first == "\(weight)  (16,16)  a weight")
    #expect(try lines("print \(weight)").count == 8)
    #expect(throws: Stepper<CPUDouble>.CommandError.self) { try stepper.perform("print \(weight)[3,99]") }
    let gain = "model.norm.weight"
    #expect(try lines("print \(gain)[2]") == ["\(gain)[2] = \(try run.weightRow(gain, 0)[2])"])
    #expect(try lines("why \(gain)[2]").last?.contains("a weight") == true)
    let branch = "mixlora.layers.0.self_attn.q_proj.lora_A.weight"
    #expect(try lines("print \(branch)[1,2]") == ["\(branch)[1,2] = \(try run.weightRow(branch, 1)[2])"])
    let (real, sequence) = (run.batch.realColumns[1], run.batch.sequences[1])
    #expect(try lines("print input_ids[1,\(real.lowerBound)]") == ["input_ids[1,\(real.lowerBound)] = \(sequence.ids[0]).0"])
    let t = try #require(sequence.labels.firstIndex { $0 != nil })
    #expect(
      try lines("print labels[1,\(real.lowerBound + t + 1)]")
        == ["labels[1,\(real.lowerBound + t + 1)] = \(sequence.labels[t]!).0"])
    #expect(try lines("print attention_mask").first == "attention_mask  (\(run.batch.rows),\(run.batch.columns))  a tensor of the batch")
    #expect(try lines("print adapter[0]") == ["adapter[0] = 0.0"])
    #expect(throws: Stepper<CPUDouble>.CommandError.self) { try stepper.perform("print input_ids[9,0]") }
  }

  @Test(arguments: [
    ("model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.output", "a weight"),
    ("mixlora.layers.1.mlp.moe_gate.weight", "model.layers.1.mlp.moe_gate.output", "a weight"),
    ("input_ids", "model.embed_tokens.output", "a tensor of the batch"), ("labels", "loss", "a tensor of the batch"),
  ])
  func goingToWhatARunReadsIsGoingToItsFirstReader(_ name: String, _ reader: String, _ kind: String) throws {
    let shown = try lines("goto \(name)")
    #expect(shown[0].hasPrefix("\(name)  (") && shown[0].contains(kind), "\(shown)")
    #expect(try Array(shown.dropFirst()) == lines("goto \(reader)"), "\(shown)")
  }

  @Test func listAndHelpAndQuit() throws {
    #expect(try lines("list").count == run.names.count)
    #expect(try lines("list model.layers.1.self_attn.*").count == 8)
    #expect(try lines("help").count == Stepper<CPUDouble>.commands.count)
    #expect(try stepper.perform("quit") == .quit)
    #expect(try lines("# a comment").isEmpty && lines("").isEmpty)
    #expect(stepper.greeting.allSatisfy { $0.count <= 80 }, "\(stepper.greeting)")
  }
}
