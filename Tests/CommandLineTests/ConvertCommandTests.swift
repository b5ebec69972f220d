import Checkpoints
import Decoders
import Foundation
import HostileCases
import TestModels
import Testing

/// `mixlora convert`, and what `mixlora train` leaves for MoE-PEFT. The numbers of what is written stand in `ConversionTests`.
@Suite struct ConvertCommandTests {
  /// A public report: MoE-PEFT opens `adapter_model.bin` alone, and a run's folder had none.
  @Test func aRunLeavesTheFileThatMoEPEFTOpens() throws {
    let scratch = try Scratch()
    let folder = try TrainingCase.folder(scratch)
    let result = try Program.run(TrainingCase.arguments(folder, "run", "--steps", "1"))
    #expect(result.code == 0, "\(result.error)")
    let run = folder.path + "/run"
    let (pickle, tensors) = (
      try PyTorchFile(path: run + "/adapter_model.bin"), try Safetensors(path: run + "/adapter_model.safetensors")
    )
    #expect(Set(pickle.entries.map(\.name)) == Set(tensors.entries.map(\.name)) && pickle.entries.count > 4)
    for entry in tensors.entries {
      let bytes = try tensors.withBytes(of: entry.name) { Array($0) }
      let isSame = try pickle.withBytes(of: entry.name) { $0.elementsEqual(bytes) }
      #expect(isSame, "\(entry.name)")
    }
    let out = folder.path + "/converted"
    let converted = try Program.run(["convert", run, "--to", "moe-peft", "--out", out, "--json"])
    #expect(converted.code == 0, "\(converted.error)")
    let report = try JSON(parsing: converted.output, file: "output")
    #expect(report["tensors"]?.intValue == tensors.entries.count && report["out"]?.stringValue?.hasSuffix("/converted") == true)
    let names = try FileManager.default.contentsOfDirectory(atPath: out).sorted()
    #expect(names == ["adapter_config.json", "adapter_model.bin"])
  }

  @Test func aMergedFolderIsAModel() throws {
    let scratch = try Scratch()
    let out = scratch.url.path + "/merged"
    let model = Fixture.path("peers/models/llama")
    let result = try Program.run(["convert", "--merge", "--model", model, Fixture.path("adapters/patterns"), "--out", out])
    #expect(result.code == 0 && result.error.isEmpty, "\(result.error)")
    let inspected = try Program.run(["inspect", out, "--json"])
    #expect(inspected.code == 0 && inspected.output.hasPrefix(#"{"kind":"model""#), "\(inspected.error)")
  }

  @Test(arguments: [
    (["--to", "peft", "--merge", "--model", "m"], 2, "one of --to and --merge"), ([], 2, "one of --to and --merge"),
    (["--merge"], 2, "--merge and --model go together"), (["--to", "peft", "--model", "m"], 2, "--merge and --model go together"),
    (["--to", "llama.cpp"], 2, "llama.cpp"), (["--to", "peft"], 3, "PEFT has no router"),
  ]) func whatCannotBeIsSaid(_ options: [String], _ code: Int32, _ says: String) throws {
    let scratch = try Scratch()
    let arguments = ["convert", Golden.folder("topk") + "/adapter", "--out", scratch.url.path + "/out"] + options
    let result = try Program.run(arguments)
    #expect(result.code == code && result.error.contains(says), "\(result.error)")
  }

  @Test func aFolderWithFilesIsNotWrittenInto() throws {
    let scratch = try Scratch()
    try "x".write(to: scratch.url.appending(path: "notes.txt"), atomically: true, encoding: .utf8)
    let result = try Program.run(["convert", Golden.folder("topk") + "/adapter", "--to", "moe-peft", "--out", scratch.url.path])
    #expect(result.code == 2 && result.error.contains("not empty"))
  }
}
