import Checkpoints
import Foundation
import Testing

/// A tiny model with a tokenizer of its own and a few lines to learn.
enum TrainingCase {
  /// The golden model with 61 tokens, a tokenizer of that size, and lines of data.
  static func folder(_ scratch: Scratch) throws -> URL {
    let folder = try scratch.golden("ffn-only")
    var vocabulary = JSON.Object()
    let letters = (0..<26).map { String(UnicodeScalar(UInt8(97 + $0))) } + ["Ġ", "Ċ", ":", "?", "."] + (0..<10).map { "\($0)" }
    for (id, letter) in (letters + (letters.count..<60).map { "<\($0)>" }).enumerated() { vocabulary[letter] = JSON(id) }
    let byteLevel: JSON = ["type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true]
    let tokenizer: JSON = [
      "version": "1.0", "truncation": nil, "padding": nil, "normalizer": nil, "pre_tokenizer": byteLevel, "post_processor": nil,
      "decoder": byteLevel,
      "added_tokens": [
        ["id": 60, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true]
      ], "model": ["type": "BPE", "vocab": .object(vocabulary), "merges": []],
    ]
    let model = folder.appending(path: "model")
    try AtomicFile.write(tokenizer.serialized(), to: model.path + "/tokenizer.json")
    try AtomicFile.write(#"{"tokenizer_class":"PreTrainedTokenizerFast","eos_token":"<end>"}"#, to: model.path + "/tokenizer_config.json")
    let lines = (0..<11).map { #"{"prompt":"what is \#($0)?","completion":" \#($0) is \#($0 + 1)."}"# }
    try AtomicFile.write(lines.joined(separator: "\n") + "\n", to: folder.path + "/data.jsonl")
    return folder
  }

  /// A run of four samples a step, into a folder of that name.
  static func arguments(_ folder: URL, _ out: String, _ extra: String...) -> [String] {
    arguments(folder, out, ["--rank", "2", "--alpha", "4", "--experts", "3"] + extra)
  }

  /// The same, training a plain LoRA.
  static func loraArguments(_ folder: URL, _ out: String, _ extra: String...) -> [String] {
    arguments(folder, out, ["--method", "lora", "--rank", "2", "--alpha", "4"] + extra)
  }

  /// The same, training all weights.
  static func fullArguments(_ folder: URL, _ out: String, _ extra: String...) -> [String] {
    arguments(folder, out, ["--method", "full"] + extra)
  }

  private static func arguments(_ folder: URL, _ out: String, _ extra: [String]) -> [String] {
    [
      "train", "--model", folder.path + "/model", "--data", folder.path + "/data.jsonl", "--out", folder.path + "/" + out, "--batch", "4",
      "--accumulate", "2", "--lr", "0.01", "--schedule", "cosine", "--warmup", "0.2",
      "--save-every", "3", "--threads", "1",
    ] + extra
  }
}

extension TrainingCase {
  /// The tokens and seconds of a run that was not resumed are those of its lines, and so is their ratio.
  static func expectPace(_ report: JSON, of lines: [JSON]) throws {
    func number(_ json: JSON, _ key: String) throws -> Double { try #require(json[key]?.doubleValue, "\(key)") }
    let tokens = try lines.reduce(0) { try $0 + number($1, "tokens") }
    let seconds = try lines.reduce(0) { try $0 + number($1, "tokens") / number($1, "tokens_per_second") }
    #expect(try number(report, "tokens") == tokens)
    #expect(try abs(number(report, "seconds") - seconds) <= 1e-6 * seconds, "\(report.serialized())")
    #expect(try abs(number(report, "tokens_per_second") - tokens / seconds) <= 1e-6 * tokens / seconds, "\(report.serialized())")
  }
}
