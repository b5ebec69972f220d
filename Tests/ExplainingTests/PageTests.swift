import CPUBackend
import Checkpoints
import Decoders
import Foundation
import Layers
import Stepping
import Tensors
import TestModels
import Testing
import Traces
import Training

@testable import Explaining

/// What a page says of a run is what the run was.
@Suite struct PageTests {
  private static let wide = 100_000_000
  private static let folder = FileManager.default.temporaryDirectory.path

  private func subject(_ text: @escaping @Sendable (Int32) -> String = { "t\($0)" }) -> ExplorerPage.Subject {
    ExplorerPage.Subject(title: "a run", text: text)
  }

  private func peer(_ name: String) throws -> PeerCase { try #require(PeerCase.all.first { $0.name == name }, "there is no case \(name)") }

  private func page(_ name: String, evaluation: ExpertEvaluation = .sharedBase, limit: Int = wide, layers: [Int] = []) throws
    -> ExplorerPage
  {
    let backend = CPUFloat(threads: 1)
    let run = try RecordedRun(peer(name).decoder(evaluation: evaluation, on: backend), peer(name).batch(), in: Self.folder, on: backend)
    return try ExplorerPage(of: run, subject(), layers: layers, limit: limit)
  }

  /// Models that have between them every kind of point, in every evaluation.
  static let cases: [(String, ExpertEvaluation)] = [
    ("llama-topk", .sharedBase), ("llama-topk", .perExpert), ("llama-topk", .sharedGateUp), ("llama-dynamic", .sharedBase),
    ("gemma2-base", .sharedBase), ("qwen2-topk", .sharedBase), ("lora-llama", .sharedBase),
  ]

  @Test(arguments: cases) func everyNumberIsThatOfATraceToTheBit(_ name: String, _ evaluation: ExpertEvaluation) throws {
    let backend = CPUFloat(threads: 1)
    let decoder = try peer(name).decoder(evaluation: evaluation, on: backend)
    var request = TraceRequest()
    (request.activations, request.backward, request.steps) = ({ _ in true }, true, 1)
    var optimizer = AdamW(decoder.parameters, learningRate: 1e-3, weightDecay: 0.01, on: backend)
    let trace = try Trace.record(
      decoder, peer(name).batch(), request, on: backend, moments: { optimizer.moments(of: $0) }, update: { optimizer.step($0) })
    let points = try ReadPage(page(name, evaluation: evaluation).html).tensors("points")
    #expect(points.map(\.name) == trace.tensors.map(\.name) && points.count > 100)
    for (point, tensor) in zip(points, trace.tensors) {
      #expect(point.shape == tensor.shape && point.bits == tensor.values.map(\.bitPattern), "\(point.name)")
      #expect(point.formula.arrayValue?.first?.stringValue != nil, "\(point.name) has no formula")
    }
  }

  @Test(arguments: ["llama-topk", "lora-llama", "gemma2-base"]) func everyWeightIsThatOfItsFile(_ name: String) throws {
    let peer = try peer(name)
    var sources: [any TensorSource] = [try Safetensors(path: peer.model + "/model.safetensors")]
    if let adapter = peer.adapter {
      let files = ["\(adapter)/adapter_model.safetensors", "\(adapter)/adapter_model.bin"]
      sources.append(Folder.exists(files[0]) ? try Safetensors(path: files[0]) : try PyTorchFile(path: files[1]))
    }
    let weights = try ReadPage(page(name).html).tensors("weights")
    #expect(weights.count > 10)
    for weight in weights {
      let source = try #require(sources.first { $0.entry(weight.name) != nil }, "\(weight.name) is in no file")
      let entry = try source.requiredEntry(weight.name)
      #expect(entry.elementType == .float32 && entry.shape == weight.shape)
      #expect(try weight.bits == source.withBytes(of: weight.name) { $0.words }, "\(weight.name)")
    }
  }

  @Test func whatHasNoRoomIsLeftOutWholeAndCounted() throws {
    let all = try page("llama-topk")
    #expect(all.leftOut.isEmpty && all.html.count < Self.wide)
    let full = try ReadPage(all.html)
    let least = all.html.count - full.numbers.utf8.count
    var before = 0
    for share in [8, 4, 2] {
      let limit = least + 8000 + full.numbers.utf8.count / share
      let page = try page("llama-topk", limit: limit)
      let read = try ReadPage(page.html)
      let tensors = try read.tensors("points") + read.tensors("weights")
      let missing = tensors.filter { $0.bits == nil }
      #expect(page.html.count <= limit && !missing.isEmpty && missing.count < tensors.count)
      #expect(page.tensors == tensors.count)
      #expect(page.leftOut.reduce(0) { $0 + $1.tensors } == missing.count)
      #expect(page.leftOut.reduce(0) { $0 + $1.numbers } == missing.reduce(0) { $0 + $1.shape.reduce(1, *) })
      #expect(try #require(read.run["left"]?.arrayValue).count == page.leftOut.count)
      #expect(tensors.count - missing.count > before, "more room gave no more tensors")
      before = tensors.count - missing.count
      // What is there is what the whole page has.
      let others = try full.tensors("points") + full.tensors("weights")
      for (tensor, other) in zip(tensors, others) where tensor.bits != nil { #expect(tensor.bits == other.bits, "\(tensor.name)") }
    }
    #expect(throws: PageTooSmall.self) { try page("llama-topk", limit: least / 2) }
  }

  /// What was taken out again is not referred to when the same bits come once more.
  @Test func numbersThatWereTakenOutAreGone() {
    var numbers = PageNumbers()
    #expect(numbers.append([1, 2, 3]) == 0)
    let place = numbers.append([4, 5])
    #expect(place == 16 && numbers.append([1, 2, 3]) == 0 && numbers.append([4, 5]) == place)
    numbers.cut(to: place)
    #expect(numbers.append([6]) == place && numbers.append([4, 5]) == place + 8 && numbers.append([1, 2, 3]) == 0)
    #expect(numbers.text.count == PageNumbers.characters(3) + PageNumbers.characters(1) + PageNumbers.characters(2))
  }

  @Test func layersThatAreAskedForComeWholeBeforeEverythingElse() throws {
    let whole = try page("llama-topk")
    let numbers = try ReadPage(whole.html).numbers.utf8.count
    for layer in 0..<2 {
      let left = try page("llama-topk", limit: whole.html.count - numbers / 3, layers: [layer]).leftOut
      #expect(!left.isEmpty && !left.contains { $0.layer == layer }, "layer \(layer): \(left)")
    }
  }

  /// A vocabulary is named whole, unless its texts would take more than a tenth of the page: then what the batch meets is.
  @Test func everyTokenIsNamedWhereThereIsRoom() throws {
    let backend = CPUFloat(threads: 1)
    let run = try RecordedRun(peer("llama-topk").decoder(on: backend), peer("llama-topk").batch(), in: Self.folder, on: backend)
    let text = String(repeating: "<", count: 190)  // six bytes each
    let vocabulary = try #require(run.shape(of: "logits")?.last)
    let met = Set(run.batch.sequences.flatMap(\.ids))
    for (limit, isWhole) in [(Self.wide, true), (400_000, false)] {
      let page = try ExplorerPage(of: run, subject { _ in text }, limit: limit)
      let names = try #require(ReadPage(page.html).run["batch"]?["names"]?.objectValue)
      #expect((names.count == vocabulary) == isWhole && page.leftOut.isEmpty == isWhole && page.html.count <= limit)
      #expect(met.allSatisfy { names["\($0)"]?.stringValue == text })
    }
  }

  /// Text of files and tokens cannot end the element that it stands in.
  @Test func textOfTokensStaysText() throws {
    let backend = CPUFloat(threads: 1)
    let run = try RecordedRun(peer("llama-topk").decoder(on: backend), peer("llama-topk").batch(), in: Self.folder, on: backend)
    let text = "</script><script>alert(1)</script>&\"\u{0}\u{2028}é"
    var subject = subject { _ in text }
    (subject.title, subject.facts) = (text, [(text, text)])
    let html = try ExplorerPage(of: run, subject, limit: Self.wide).html
    let read = try ReadPage(html)
    #expect(read.run["title"]?.stringValue == text)
    #expect(String(decoding: html, as: UTF8.self).ranges(of: "alert(1)").isEmpty == false)
    #expect(String(decoding: html, as: UTF8.self).ranges(of: "</script>").count == 3)
  }

  @Test func aCurveIsTheMeanOfAsManyStepsAsAPointStandsFor() throws {
    let backend = CPUFloat(threads: 1)
    let run = try RecordedRun(peer("llama-topk").decoder(on: backend), peer("llama-topk").batch(), in: Self.folder, on: backend)
    var subject = subject()
    subject.metrics = (1...401).map { step in
      Metrics(
        step: step, loss: Double(step), auxLoss: 0, learningRate: 0, gradientNorm: 0, tokens: 1, tokensPerSecond: 1,
        expertLoad: [[step % 2 == 0 ? 1 : 0, step % 2 == 0 ? 0 : 1]])
    }
    let training = try #require(ReadPage(ExplorerPage(of: run, subject, limit: Self.wide).html).run["training"])
    let (at, loss) = (try #require(training["at"]?.arrayValue), try #require(training["loss"]?.arrayValue))
    #expect(training["width"]?.intValue == 3 && at.count == 134 && loss.count == 134)
    #expect(at[0].intValue == 3 && loss[0].doubleValue == 2 && at[133].intValue == 401 && loss[133].doubleValue == 400.5)
    let load = try #require(training["load"]?.arrayValue)
    #expect(load.count == 134 && load[0].arrayValue?[0].arrayValue?.compactMap(\.doubleValue) == [0.33333, 0.66667])
  }
}

extension UnsafeRawBufferPointer {
  /// Its bytes as 32-bit words.
  fileprivate var words: [UInt32] {
    stride(from: 0, to: count, by: 4).map { UInt32(littleEndian: loadUnaligned(fromByteOffset: $0, as: UInt32.self)) }
  }
}
