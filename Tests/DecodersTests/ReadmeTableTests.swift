import Checkpoints
import Foundation
import Tensors
import Testing

@testable import Decoders
@testable import Tokenization

/// README's table of what is read says what the code reads, no more and no less.
@Suite struct ReadmeTableTests {
  /// The words in back quotes of a row's second cell, the cell, and the one behind it.
  private func row(_ title: String) throws -> (quoted: Set<String>, cell: String, otherwise: String) {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let text = try String(contentsOf: root.appending(path: "README.md"), encoding: .utf8)
    let section = try #require(text.components(separatedBy: "### What is read\n").last?.components(separatedBy: "\n### ").first)
    let line = try #require(section.split(separator: "\n").first { $0.hasPrefix("| \(title)") }, "README has no row \(title)")
    let cells = line.split(separator: "|", omittingEmptySubsequences: false).map(String.init)
    let cell = cells[2]
    let pieces = cell.split(separator: "`", omittingEmptySubsequences: false)
    return (Set(pieces.indices.filter { $0 % 2 == 1 }.map { String(pieces[$0]) }), cell, cells[3])
  }

  /// Expects a cell to consist of phrases, each of which stands for something that a test tries, and small words between them.
  private func expect(_ cell: String, consistsOf phrases: [String]) {
    var rest = cell
    for phrase in phrases.sorted(by: { $0.count > $1.count }) {
      #expect(rest.contains(phrase), "README does not say: \(phrase)")
      rest = rest.replacing(phrase, with: "")
    }
    let words = rest.split { !$0.isLetter }.map(String.init)
    #expect(
      Set(words).isSubset(of: ["and", "with", "of", "adapters", "refused", "by", "name"]), "nothing tries what README says: \(words)")
  }

  @Test func families() throws {
    #expect(try row("families").quoted == Set(DecoderFamilies.all.map(\.name)))
  }

  @Test func rotaryScaling() throws {
    let configuration: JSON = [
      "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
      "vocab_size": 11, "rope_scaling": ["rope_type": "unheard-of"],
    ]
    let error = try #require(throws: CheckpointError.self) { _ = try DecoderConfiguration(configuration, file: "config.json") }
    let names = "\(error)".split(separator: "\"", omittingEmptySubsequences: false)
    let known = try row("rotary").quoted
    #expect(known.count > 4 && known.isSubset(of: Set(names.map(String.init))), "\(error)")
    for name in names where name.allSatisfy({ $0.isLetter || $0.isNumber }) && "\(error)".contains("or \"\(name)\"") {
      #expect(known.contains(String(name)), "README does not say that \(name) is read")
    }
  }

  @Test func formats() throws {
    func names(_ formats: [WeightFormat]) -> Set<String> { Set(formats.map { ElementType.float($0).rawValue.uppercased() }) }
    func listed(_ cell: String) -> Set<String> {
      Set(cell.split { !($0.isLetter || $0.isNumber || $0 == "_") }.map { $0.uppercased() }.filter(names(WeightFormat.allCases).contains))
    }
    #expect(try listed(row("GGUF").cell) == names(WeightFormat.allCases))
    #expect(try listed(row("weights").cell) == names(WeightFormat.allCases.filter { $0.blockCount == 1 }))
    #expect(try row("GGUF").quoted == Set(DecoderFamilies.all.filter { $0.gguf != nil }.map(\.name)))
  }

  @Test func tokenizers() throws {
    let (quoted, cell, otherwise) = try row("tokenizers")
    let files: Set = ["tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json"]
    #expect(quoted == files.union(TokenizerDescription.ggufModels))
    // The classes that read files of their own, as README calls them.
    let names = [
      "Llama": "Llama", "Gemma": "Gemma", "GPT2": "GPT-2", "CodeGen": "CodeGen", "Qwen2": "Qwen2", "Cohere": "Cohere", "Bloom": "Bloom",
      "GPTNeoX": "GPT-NeoX", "PreTrained": "any",
    ]
    func classes(behind file: String) throws -> Set<String> {
      let list = try #require(
        cell.components(separatedBy: file).last?.components(separatedBy: ")").first?.components(separatedBy: " of ").last)
      return Set(list.replacing(" and ", with: ", ").components(separatedBy: ", "))
    }
    func known(_ isRead: (TokenizerClass) -> Bool) throws -> Set<String> {
      Set(try names.filter { isRead(try #require(TokenizerClass(name: $0.key + "Tokenizer"))) }.values)
    }
    #expect(try classes(behind: "`tokenizer.model`") == known { $0.converts.sentencePiece })
    #expect(try classes(behind: "`merges.txt`") == known { $0.bytePairs != nil })
    for (type, phrase) in [("WordPiece", "WordPiece"), ("WordLevel", "word level")] {
      let json: JSON = ["version": "1.0", "model": ["type": JSON(type), "vocab": ["a": 0], "unk_token": "a"]]
      let error = try #require(throws: CheckpointError.self) { try TokenizerDescription(json, file: "t") }
      #expect("\(error)".contains("BPE") && "\(error)".contains("Unigram") && otherwise.contains(phrase), "\(error)")
    }
    #expect(cell.contains("BPE") && cell.contains("unigram"))
  }

  @Test func adapters() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "mixlora-" + UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    func read(_ more: [String: JSON]) throws {
      var object = JSON.Object()
      let plain: [String: JSON] = ["peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]]
      for (key, value) in plain.merging(more, uniquingKeysWith: { $1 }) { object[key] = value }
      try Data(JSON.object(object).serialized().utf8).write(to: folder.appending(path: "adapter_config.json"))
      _ = try AdapterConfiguration(contentsOf: folder.path + "/adapter_config.json")
    }
    let mixture: [String: JSON] = ["peft_type": "MIXLORA", "num_experts": 2, "target_modules": ["up_proj"]]
    let isRead: [String: [String: JSON]] = [
      "MoE-PEFT's MixLoRA": mixture.merging(["routing_strategy": "mixlora", "top_k": 2]) { $1 },
      "top-p MixLoRA": mixture.merging(["routing_strategy": "mixlora-dynamic", "top_p": 0.5]) { $1 },
      "PEFT's LoRA": [:], "rank and alpha patterns": ["rank_pattern": ["q_proj": 3], "alpha_pattern": ["q_proj": 5]],
      "regular expressions": ["target_modules": ".*q_proj"], "saved modules": ["modules_to_save": ["lm_head"]], "biases": ["bias": "all"],
      "rsLoRA": ["use_rslora": true], "PiSSA": ["init_lora_weights": "pissa"], "OLoRA": ["init_lora_weights": "olora"],
    ]
    let isRefused: [String: [String: JSON]] = [
      "DoRA": ["use_dora": true], "other methods": ["peft_type": "LOHA"], "mlx-lm": ["fine_tune_type": "lora", "num_layers": 2],
    ]
    let (_, cell, otherwise) = try row("adapters")
    expect(cell, consistsOf: isRead.keys.sorted())
    expect(otherwise, consistsOf: isRefused.keys + ["llama.cpp"])
    for (phrase, settings) in isRead { #expect(throws: Never.self, "\(phrase)") { try read(settings) } }
    for (phrase, settings) in isRefused { #expect(throws: CheckpointError.self, "\(phrase)") { try read(settings) } }
    try FileManager.default.removeItem(at: folder.appending(path: "adapter_config.json"))
    try Data("GGUF".utf8).write(to: folder.appending(path: "adapter.gguf"))
    let error = try #require(throws: CheckpointError.self) { try AdapterFolder.tensors(in: folder.path) }
    #expect("\(error)".contains("llama.cpp"), "\(error)")
  }
}
