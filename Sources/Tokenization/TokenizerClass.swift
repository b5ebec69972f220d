import JSON

/// What the Python class that a `tokenizer_config.json` names does to the tokenizer beside it, as transformers 4.46.3 has it.
struct TokenizerClass {
  /// What a class makes of `add_prefix_space`.
  enum PrefixSpace {
    /// Nothing.
    case ignored
    /// The outermost step, where it is `ByteLevel`, gets it; false if it is not said.
    case replaced
    /// Every step gets it where it is true.
    case added
    /// The tokenizer is made anew from `tokenizer.model` where it is said.
    case converted
  }

  /// The classes that make a tokenizer of `vocab.json` and `merges.txt`.
  enum BytePairs {
    case gpt2
    case codeGen
    case qwen2
  }

  /// Tokens that are there although no file names them, by the key that would.
  var defaults: [String: String] = [:]
  /// Whether the class decides which tokens go around a text (`add_bos_token`, `add_eos_token`), and whether a begin token does where nobody
  /// says so.
  var template: (isOwn: Bool, addsBeginToken: Bool) = (false, false)
  var prefixSpace = PrefixSpace.ignored
  /// Whether it makes a tokenizer of a `tokenizer.model`, and whether as Gemma's class does.
  var converts: (sentencePiece: Bool, asGemma: Bool) = (false, false)
  /// How it makes a tokenizer of `vocab.json` and `merges.txt`; nil if it does not.
  var bytePairs: BytePairs?
  /// Whether special tokens that are named by their text alone are never normalized, whatever `tokenizer.json` says of them.
  var redefinesTokens = false
  /// Further special tokens, by key and default.
  var further: [(key: String, token: String)] = []

  /// The class of a name, with or without "Fast"; nil for one that is not known here.
  init?(name: String) {
    switch name.utf8.suffix(4).elementsEqual("Fast".utf8) ? String(name.dropLast(4)) : name {
    case "PreTrainedTokenizer", "TokenizersBackend", "Tokenizers": break
    case "LlamaTokenizer", "CodeLlamaTokenizer":
      defaults = ["bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"]
      template = (true, true)
      converts = (true, false)
      if name.utf8.starts(with: "Code".utf8) {
        further = [
          ("prefix_token", "\u{2581}<PRE>"), ("middle_token", "\u{2581}<MID>"), ("suffix_token", "\u{2581}<SUF>"),
          ("eot_token", "\u{2581}<EOT>"),
        ]
      } else {
        prefixSpace = .converted
      }
    case "GemmaTokenizer":
      defaults = ["bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"]
      template = (true, true)
      converts = (true, true)
    case "CohereTokenizer":
      defaults = ["bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>", "unk_token": "<UNK>"]
      template = (true, true)
      prefixSpace = .added
    case "BloomTokenizer":
      defaults = ["bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"]
      prefixSpace = .added
    case "GPTNeoXTokenizer":
      defaults = ["bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"]
      template = (true, false)
      prefixSpace = .replaced
    case "GPT2Tokenizer", "CodeGenTokenizer":
      defaults = ["bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"]
      prefixSpace = .replaced
      bytePairs = name.utf8.starts(with: "GPT2".utf8) ? .gpt2 : .codeGen
    case "Qwen2Tokenizer":
      defaults = ["eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"]
      redefinesTokens = true
      bytePairs = .qwen2
    default: return nil
    }
  }

  /// The class that a model's type stands for where no file names one.
  init(modelType: String?) {
    let name =
      switch modelType {
      case "llama", "mistral", "mixtral", "phi3", "phimoe", "persimmon", "jamba": "LlamaTokenizer"
      case "gemma", "gemma2", "recurrent_gemma": "GemmaTokenizer"
      case "qwen2", "qwen2_moe": "Qwen2Tokenizer"
      case "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "starcoder2", "opt": "GPT2Tokenizer"
      case "gpt_neox", "olmo", "olmoe", "stablelm", "mpt", "falcon_mamba", "mamba": "GPTNeoXTokenizer"
      case "phi", "codegen": "CodeGenTokenizer"
      case "cohere": "CohereTokenizer"
      case "bloom": "BloomTokenizer"
      default: "PreTrainedTokenizer"
      }
    self = TokenizerClass(name: name) ?? TokenizerClass()
  }

  private init() {}

  /// `tokenizer.json` with its `pre_tokenizer` as the class changes it.
  func changed(_ json: JSON, addsPrefixSpace: Bool) -> JSON {
    guard var object = json.objectValue, let step = json["pre_tokenizer"] else { return json }
    switch prefixSpace {
    case .ignored, .converted: return json
    case .replaced:
      guard var outermost = step.objectValue, outermost["add_prefix_space"] != nil else { return json }
      outermost["add_prefix_space"] = JSON(addsPrefixSpace)
      object["pre_tokenizer"] = .object(outermost)
    case .added:
      guard addsPrefixSpace else { return json }
      object["pre_tokenizer"] = Self.addingPrefixSpace(step)
    }
    return .object(object)
  }

  private static func addingPrefixSpace(_ step: JSON) -> JSON {
    if let list = step.arrayValue { return .array(list.map(addingPrefixSpace)) }
    guard let members = step.objectValue?.members else { return step }
    var object = JSON.Object()
    for member in members {
      object[member.key] = member.key.utf8.elementsEqual("add_prefix_space".utf8) ? true : addingPrefixSpace(member.value)
    }
    return .object(object)
  }
}
