import CPUBackend
import Checkpoints
import Decoders
import Layers
import Stepping
import Tensors
import TestModels
import Testing
import Traces

/// Every number of a run is the sum or product that `why` says: recomputed from the numbers that it shows.
@Suite struct WhyTests {
  /// Models that have between them every kind of point.
  struct Case: Sendable, CustomTestStringConvertible {
    var peer: String
    var evaluation = ExpertEvaluation.sharedBase
    var trainsBase: Bool?
    var balance = BalanceLossForm.pooledTopK
    var testDescription: String { "\(peer), \(evaluation)\(trainsBase == true ? ", base trained" : ""), \(balance)" }
  }

  static let cases: [Case] = [
    Case(peer: "llama-topk"), Case(peer: "llama-topk", evaluation: .perExpert), Case(peer: "llama-topk", evaluation: .sharedGateUp),
    Case(peer: "llama-topk", balance: .perLayerArgmax), Case(peer: "llama-bias", trainsBase: true),
    Case(peer: "llama-bias", evaluation: .perExpert, trainsBase: true),
    Case(peer: "llama-bias", evaluation: .sharedGateUp, trainsBase: true),
    Case(peer: "llama-bias-base"), Case(peer: "qwen2-topk"), Case(peer: "qwen2-base"), Case(peer: "gemma-topk"), Case(peer: "gemma-base"),
    Case(peer: "gemma2-topk"), Case(peer: "gemma2-base"), Case(peer: "gemma2-window"), Case(peer: "lora-llama"), Case(peer: "lora-gemma2"),
    Case(peer: "lora-llama-subset"), Case(peer: "llama-dynamic"), Case(peer: "llama-dynamic-temperature"),
    Case(peer: "qwen2-dynamic", evaluation: .perExpert), Case(peer: "llama-top1"), Case(peer: "llama-yarn"),
    Case(peer: "mistral-longrope"), Case(peer: "llama-dynamic-rope"), Case(peer: "mistral-window"), Case(peer: "llama-expert-lora"),
    Case(peer: "mistral-ffn"),
  ]

  @Test(arguments: cases) func everyNumberIsRecomputed(_ one: Case) throws {
    let peer = try #require(PeerCase.all.first { $0.name == one.peer }, "there is no case \(one.peer)")
    let backend = CPUDouble(threads: 1)
    let decoder = try peer.decoder(
      evaluation: one.evaluation, balanceLoss: one.balance, trainsBase: one.trainsBase, on: backend)
    try expectRecomputed(RecordedRun(decoder, peer.batch(), in: temporaryFolder, on: backend), few: 3)
  }

  @Test(arguments: ["llama-plural", "gemma2-plural"], ExpertEvaluation.allCases)
  func severalAdaptersToo(_ name: String, _ evaluation: ExpertEvaluation) throws {
    let index = try JSON(contentsOf: Fixture.path("peers/plural.json")).arrayValue ?? []
    let json = name == "llama-plural" ? try #require(index.first) : try #require(index.last)
    func path(_ key: String) throws -> String { Fixture.path("peers/" + (try #require(json[key]?.stringValue))) }
    let adapters = try #require(json["adapters"]?.arrayValue).map { AdapterOrigin.folder(Fixture.path("peers/" + ($0.stringValue ?? ""))) }
    let (model, backend) = (try ModelFolder(path("model")), CPUDouble(threads: 1))
    let batch = try TraceBatch(contentsOf: path("batch"), vocabulary: model.configuration.vocabulary, adapters: adapters.count)
    let decoder = try model.decoder(adapters: adapters, evaluation: evaluation, on: backend)
    try expectRecomputed(RecordedRun(decoder, batch, in: temporaryFolder, on: backend), few: 3)
  }

  /// One adapter whose batch has rows of the base alone.
  @Test(arguments: ["llama-topk", "lora-llama"], ExpertEvaluation.allCases)
  func rowsOfTheBaseToo(_ name: String, _ evaluation: ExpertEvaluation) throws {
    let peer = try #require(PeerCase.all.first { $0.name == name })
    let backend = CPUDouble(threads: 1)
    let batch = try peer.batch()
    let mixed = batch.serving((0..<batch.rows).map { $0 == 0 ? nil : 0 })
    try expectRecomputed(RecordedRun(peer.decoder(evaluation: evaluation, on: backend), mixed, in: temporaryFolder, on: backend), few: 3)
  }

  /// Every tensor of the run, some elements of each: the sum or product is the number, to 1e-9, or where terms cancel to the rounding
  /// of the terms.
  private func expectRecomputed(_ run: RecordedRun<CPUDouble>, few: Int) throws {
    let explainer = Explainer(run)
    var kinds: Set<OperationKind> = []
    var (checked, wrong) = (0, [String]())
    for name in run.names {
      let shape = try #require(run.shape(of: name))
      let count = shape.reduce(1, *)
      let provenance = try #require(run.provenance(of: name))
      let (kind, inputs) = (provenance.operation, Set(provenance.inputs.map(\.name)))
      var found = 0  // elements where something is
      for n in 0..<min(5 * few, count) where found < few {
        let element = RunElement(name, index((n * 7919 + n * n) % count, shape))
        let why = try explainer.why(element)
        checked += 1
        if case .nothing = why.form {
        } else {
          found += 1
          kinds.insert(kind)
        }
        // It reads what its provenance names, and nothing else.
        let sources = Set(why.sources.map(\.name))
        if !sources.isSubset(of: inputs) { wrong.append("\(element) reads \(sources.subtracting(inputs))") }
        let error = abs(why.recomputed - why.value)
        if !(error <= 1e-9 * abs(why.value) || error <= 1e-13 * why.magnitude) {
          wrong.append("\(element): \(why.value), recomputed \(why.recomputed), \(why.equation)")
        }
      }
    }
    #expect(wrong.isEmpty, "\(wrong.count) of \(checked) are wrong:\n\(wrong.prefix(12).joined(separator: "\n"))")
    #expect(checked > 500 && kinds.count >= 15, "\(checked) numbers of \(kinds.count) kinds")
  }

  private func index(_ n: Int, _ shape: [Int]) -> [Int] {
    var (rest, index) = (n, [Int]())
    for size in shape.reversed() {
      index.insert(rest % size, at: 0)
      rest /= size
    }
    return index
  }

  @Test func betweenThemTheCasesHaveEveryKindOfPoint() throws {
    var kinds: Set<OperationKind> = []
    for one in Self.cases {
      let peer = try #require(PeerCase.all.first { $0.name == one.peer })
      let shapes = ShapeBackend()
      let decoder = try peer.decoder(evaluation: one.evaluation, trainsBase: one.trainsBase, on: shapes)
      kinds.formUnion(try Provenances(decoder).all.map(\.operation))
    }
    #expect(kinds == Set(OperationKind.allCases), "\(Set(OperationKind.allCases).subtracting(kinds))")
  }
}
