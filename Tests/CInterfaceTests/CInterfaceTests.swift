import CMixLoRA
import MixLoRA
import TestModels
import Testing

@testable import CInterface

/// The functions for C, called as C calls them. One at a time, so that handles can be counted.
@Suite(.serialized) struct CInterfaceTests {
  private let golden = Golden.folder("topk")

  private func model(precision: String = "float64", _ more: JSON = [:]) throws -> Handle {
    var settings: JSON = [
      "model": JSON(golden + "/model"), "adapters": [JSON(golden + "/adapter")], "precision": JSON(precision), "threads": 1,
    ]
    for member in more.objectValue?.members ?? [] { settings = settings.with(member.key, member.value) }
    return try Handle { mixlora_open(settings.serialized(), $0) }
  }

  private func trace(_ model: Handle, _ more: JSON = [:]) throws -> Handle {
    var settings: JSON = ["batch": JSON(golden + "/batch.safetensors")]
    for member in more.objectValue?.members ?? [] { settings = settings.with(member.key, member.value) }
    return try Handle { mixlora_trace(model.number, settings.serialized(), $0) }
  }

  /// A trace with everything, as the library itself records it.
  private func expected<B: Backend>(on backend: B) throws -> Trace<B.Scalar> {
    let decoder = try Golden.decoder("topk", on: backend)
    var optimizer = AdamW(decoder.parameters, learningRate: 0.01, weightDecay: 0.02, on: backend)
    var request = TraceRequest()
    (request.backward, request.steps, request.activations) = (true, 2, { _ in true })
    return try Trace.record(decoder, Golden.batch("topk"), request, on: backend, moments: { optimizer.moments(of: $0) }) {
      optimizer.step($0)
    }
  }

  private func check<B: Backend>(_ precision: String, on backend: B) throws {
    let everything: JSON = ["backward": true, "activations": true, "steps": 2, "lr": 0.01, "weight_decay": 0.02]
    let (model, expected) = (try model(precision: precision), try expected(on: backend))
    for _ in 0..<2 {  // the second run meets the model as the first did
      let trace = try trace(model, everything)
      let names = try trace.json["tensors"]?.arrayValue?.compactMap { $0["name"]?.stringValue } ?? []
      #expect(names == expected.tensors.map(\.name) && names.count > 200)
      for tensor in expected.tensors {
        let array = try ArrayHandle { mixlora_tensor(trace.number, tensor.name, $0, $1) }
        #expect(array.shape == tensor.shape, "\(tensor.name)")
        let hasItsBits = array.bytes == tensor.values.withUnsafeBytes { Array($0) }
        #expect(hasItsBits, "\(tensor.name)")
        #expect(Int(array.array.size) == MemoryLayout<B.Scalar>.size)
      }
      let losses = try trace.json["losses"]?["loss"]?.arrayValue?.map { $0.doubleValue }
      #expect(losses == expected.tensors.first { $0.name == "loss" }?.values.map { Double($0) })
    }
  }

  @Test func everyTensorHasTheBitsOfATrace() throws {
    try check("float64", on: CPUDouble(threads: 1))
    try check("float32", on: CPUFloat(threads: 1))
  }

  @Test func pointsAreThoseOfTheListAndATraceSaysWhatItsTensorsAreFormedOf() throws {
    let model = try model()
    let listed = try ModelFolder(golden + "/model").decoder(adapter: .folder(golden + "/adapter"), on: ShapeBackend()).points()
    let points = try Handle { mixlora_points(model.number, $0) }.json.arrayValue ?? []
    #expect(points.map { $0["name"]?.stringValue } == listed.map(\.name) && points.count > 100)
    #expect(points.map { $0["equation"]?.stringValue } == listed.map(\.equation))
    let tensors = try trace(model, ["activations": true]).json["tensors"]?.arrayValue ?? []
    #expect(!tensors.isEmpty && tensors.allSatisfy { !($0["equation"]?.stringValue ?? "").isEmpty })
  }

  // MARK: Memory

  @Test func anArrayIsTheTracesMemoryAndOutlivesTraceAndModel() throws {
    let before = Handles.all.count
    var array: ArrayHandle?
    var bytes: [UInt8] = []
    do {
      let model = try model()
      let trace = try trace(model)
      let (first, second) = try (
        ArrayHandle { mixlora_tensor(trace.number, "logits", $0, $1) }, ArrayHandle { mixlora_tensor(trace.number, "logits", $0, $1) }
      )
      #expect(first.array.data == second.array.data && first.number != second.number, "nothing is copied")
      #expect(UInt(bitPattern: first.array.data) % 64 == 0)
      (array, bytes) = (second, first.bytes)
    }
    #expect(Handles.all.count == before + 1)
    let isUntouched = array?.bytes == bytes && !bytes.allSatisfy { $0 == 0 }
    #expect(isUntouched)
    array = nil
    #expect(Handles.all.count == before)
  }

  @Test func memoryGoesWithTheLastWhoHoldsIt() throws {
    weak var kept: HeldArray?
    do {
      let model = try model()
      let trace = try trace(model)
      let array = try ArrayHandle { mixlora_tensor(trace.number, "logits", $0, $1) }
      kept = Handles.all.object(array.number) as? HeldArray
      mixlora_release(trace.number)
      mixlora_release(model.number)
      #expect(kept != nil)
      mixlora_release(array.number)
      #expect(kept == nil)
    }
  }

  @Test func releasingTwiceIsHarmlessAndNumbersAreNeverGivenAgain() throws {
    let first = try Handle { mixlora_file("capture/torch", Scrap.array, $0) }
    mixlora_release(first.number)
    mixlora_release(first.number)
    mixlora_release(0)
    mixlora_release(.max)
    #expect(mixlora_text(first.number) == nil)
    #expect(try Handle { mixlora_file("capture/torch", Scrap.array, $0) }.number > first.number)
    #expect(mixlora_interface() == 2)
  }

  @Test func aReleasedModelOrOneOfAnotherKindIsAnError() throws {
    let (model, gone) = (try model(), try model().number)  // the second is released at once
    let trace = try trace(model)
    for number in [0, gone, .max, trace.number] {
      for call in [
        { mixlora_points(number, $0) }, { mixlora_tokens(number, "a", $0) }, { mixlora_trace(number, "{}", $0) },
        { mixlora_train_step(number, $0) }, { mixlora_train_save(number, "/tmp/x", $0) },
      ] as [(UnsafeMutablePointer<mixlora_handle>?) -> mixlora_handle] {
        #expect(message(call).contains("found handle \(number)") && message(call).contains("expected a model"), "\(message(call))")
      }
    }
    #expect(message { mixlora_tensor(model.number, "logits", Scrap.array, $0) }.contains("of another kind; expected a trace"))
    #expect(message { mixlora_train_step(model.number, $0) } == "found a model that was opened; expected a training run")
  }

  // MARK: Errors

  @Test func everyBadInputHasAMessage() throws {
    let model = try model()
    let trace = try trace(model)
    let batch = "\"batch\":\"\(golden)/batch.safetensors\""
    let where_ = "\"model\":\"\(golden)/model\""
    for (call, expected) in [
      ({ mixlora_open(nil, $0) }, "found NULL; expected settings"),
      ({ mixlora_open("{", $0) }, "settings"),
      ({ mixlora_open("[1]", $0) }, "expected an object"),
      ({ mixlora_open("\u{0}", $0) }, "settings"),
      ({ mixlora_open("{}", $0) }, "key \"model\": found nothing"),
      ({ mixlora_open("{\"model\":7}", $0) }, "expected a string"),
      ({ mixlora_open("{\"model\":\"/nowhere\"}", $0) }, "/nowhere"),
      ({ mixlora_open("{\(where_),\"adapters\":[\"/nowhere\"]}", $0) }, "/nowhere"),
      ({ mixlora_open("{\(where_),\"adapter\":\"x\"}", $0) }, "key \"adapter\""),
      ({ mixlora_open("{\(where_),\"threads\":0}", $0) }, "1...1024"),
      ({ mixlora_open("{\(where_),\"precision\":\"half\"}", $0) }, "\"float32\" or \"float64\""),
      ({ mixlora_tokens(model.number, nil, $0) }, "found NULL; expected a text"),
      ({ mixlora_tokens(model.number, "a", $0) }, "tokenizer"),
      ({ mixlora_trace(model.number, nil, $0) }, "found NULL"),
      ({ mixlora_trace(model.number, "{\"batch\":\"/nowhere\"}", $0) }, "/nowhere"),
      ({ mixlora_trace(model.number, "{\(batch),\"steps\":-1}", $0) }, "steps"),
      ({ mixlora_trace(model.number, "{\(batch),\"lr\":-1}", $0) }, "a number ≥ 0"),
      ({ mixlora_trace(model.number, "{\(batch),\"activations\":\"nothing\"}", $0) }, "'nothing', which no path matches"),
      (
        { mixlora_trace(model.number, "{\(batch),\"forward\":true}", $0) },
        "no such setting; there are activations, backward, batch, lr, recompute, steps, weight_decay"
      ),
      ({ mixlora_tensor(trace.number, nil, Scrap.array, $0) }, "found NULL; expected a tensor's name"),
      ({ mixlora_tensor(trace.number, "logits", nil, $0) }, "found NULL; expected a place"),
      ({ mixlora_tensor(trace.number, "logit", Scrap.array, $0) }, "such as logits, router_logits"),
      ({ mixlora_train("{\(where_),\"data\":\"/nowhere\",\"rank\":0}", $0) }, "rank is 0"),
      ({ mixlora_train("{\(where_),\"data\":\"/nowhere\",\"rank\":1000000,\"experts\":1000000}", $0) }, "GiB of this machine"),
      ({ mixlora_train("{\(where_),\"data\":\"/nowhere\",\"weight_decay\":-1}", $0) }, "weight_decay is -1"),
      ({ mixlora_train("{\(where_),\"data\":\"/nowhere\",\"targets\":[\"x\"]}", $0) }, "'x'"),
      ({ mixlora_train("{\(where_),\"data\":\"/nowhere\"}", $0) }, "found"),
      ({ mixlora_compare("{\"candidate\":\"/nowhere\"}", $0) }, "expected a model and a batch, or a reference"),
      ({ mixlora_compare("{\"candidate\":\"/nowhere\",\"reference\":\"/nowhere\"}", $0) }, "/nowhere"),
      ({ mixlora_compare("{\"candidate\":\"c\",\"reference\":\"r\",\"map\":[\"(\"]}", $0) }, "("),
      ({ mixlora_file("x", Scrap.array, $0) }, "capture/torch, capture/numpy, base/config.json"),
      ({ mixlora_file(nil, nil, $0) }, "found NULL"),
    ] as [((UnsafeMutablePointer<mixlora_handle>?) -> mixlora_handle, String)] {
      #expect(message(call).contains(expected), "\(message(call)) for \(expected)")
    }
    #expect(mixlora_open(nil, nil) == 0, "nobody wants to know why")
  }

  @Test func whatAModelWithoutGradientsOrABatchWithoutLabelsCannotDoIsSaid() throws {
    let frozen = try Handle { mixlora_open("{\"model\":\"\(golden)/model\",\"gradients\":false}", $0) }
    let settings = "{\"batch\":\"\(golden)/batch.safetensors\",\"backward\":true}"
    #expect(message { mixlora_trace(frozen.number, settings, $0) }.contains("gradients false"))
    let scratch = try Scratch()
    let file = scratch.path + "/unlabeled.safetensors"
    try SafetensorsWriter.write(to: file, entries: [TensorEntry(name: "input_ids", elementType: .int64, shape: [1, 2])]) { _, emit in
      try withUnsafeBytes(of: (Int64(1), Int64(2))) { try emit($0) }
    }
    let model = try model()
    #expect(message { mixlora_trace(model.number, "{\"batch\":\"\(file)\",\"backward\":true}", $0) }.contains("has none"))
    #expect(try Handle { mixlora_trace(model.number, "{\"batch\":\"\(file)\"}", $0) }.json["losses"] == [:])
  }
}
