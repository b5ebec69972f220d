/// What `tokenizer.ggml.pre` of a GGUF file says by a name: the steps of the tokenizer that it was made from.
///
/// The names are llama.cpp's. Steps are those of the published `tokenizer.json`, of which llama.cpp's are an approximation; where the ids that
/// it publishes differ, they are followed.
struct PublishedPreTokenizer {
  var normalizers: [Normalizer] = []
  var steps: [PreTokenizer] = []
  /// Whether a piece that is a token as a whole is that token.
  var ignoresMerges = false
  /// Whether a begin token is put before a text where the file does not say.
  var addsBeginToken = false

  /// The steps of a name; nil for one that is not known.
  init?(named name: String) {
    guard let steps = Self.steps(name) else { return nil }
    self.steps = steps
    // Not qwen35: llama.cpp's published ids are those of the text as it stands.
    if ["qwen2", "megrez", "stablelm2", "command-r", "mpt", "olmo"].contains(name) { normalizers = [.form(.c)] }
    ignoresMerges =
      Self.llamas.contains(name) || ["minicpm5", "youtu", "glm4", "glm5", "tekken", "granite-embed-multi-97m"].contains(name)
    addsBeginToken = Self.llamas.contains(name) || name == "tekken"
  }

  private static let llamas = [
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
  ]

  private typealias Published = RegularExpression.Published

  private static func split(_ source: String) -> PreTokenizer { .split(.published(source), .isolated, isInverted: false) }

  private static func steps(_ name: String) -> [PreTokenizer]? {
    let digits = PreTokenizer.digits(individually: true)
    let gpt2 = PreTokenizer.split(.gpt2, .isolated, isInverted: false)
    switch name {
    case "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de",
      "jina-v1-en", "jina-v2-code", "roberta-bpe", "gigachat", "a.x-4.0", "mellum", "modern-bert", "exaone4":
      return [gpt2]
    case "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2": return [digits, gpt2]
    case "qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2":
      return [split(Published.llama(numbers: #"\p{N}"#))]
    case "qwen35": return [split(Published.qwen35)]
    case "dbrx", "smaug-bpe", "chatglm-bpe", "glm4", "glm5": return [split(Published.llama(numbers: #"\p{N}{1,3}"#))]
    case "falcon": return [.punctuation(.contiguous), gpt2, split("[0-9][0-9][0-9]")]
    case "deepseek-llm":
      return [
        split("[\r\n]"), split(Published.deepSeekLetters), split(Published.deepSeekPunctuation), split(#"\s+$"#),
        split(Published.ideographs), .digits(individually: true),
      ]
    case "deepseek-coder":
      return [split("[\r\n]"), split(#"\s?\p{L}+"#), split(#"\s?\p{P}+"#), split(Published.ideographs), digits]
    case "deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4":
      return [split(#"\p{N}{1,3}"#), split(Published.ideographsAndKana), split(Published.deepSeek3)]
    case "spark2_5":
      return [
        split(#"\p{N}{1,3}"#), split(Published.ideographsAndKana),
        split(Published.deepSeekWords + #"|[\r\n]|\s+(?!\S)|\s+"#), split(#"\p{N}"#),
      ]
    case "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "granite-embed-multi-97m":
      return [split(Published.cases(numbers: #"\p{N}{1,3}"#, contractions: true))]
    case "tekken": return [split(Published.cases(numbers: #"\p{N}"#, contractions: false))]
    case "tiny_aya", "cohere2moe":
      return [split(Published.thousands), split(Published.cases(numbers: #"\p{N}{1,3}"#, contractions: true))]
    case "kimi-k2": return [split(Published.kimi)]
    case "jais-2": return [split(Published.cascade)]
    case "bailingmoe", "bailingmoe2", "llada-moe": return [split(Published.bailing)]
    case "seed-coder": return [split(Published.seedCoder)]
    case "exaone-moe": return [split(Published.exaone)]
    case "minicpm5": return [split(#"\p{N}{1,3}"#), split(Published.llama(numbers: #"\p{N}+"#))]
    case "poro-chat", "bloom", "gpt3-finnish": return [split(Published.bloom)]
    case "viking": return [split(Published.bloom), digits]
    case "superbpe": return [split(#"\p{N}+"#), split(#"(?=(\d{3})+(?!\d))"#)]
    case "laguna": return [split(Published.lines), split(Published.llama(numbers: #"\p{N}"#))]
    case "", "default":
      return [.punctuation(.contiguous), gpt2, split(#"\p{N}+"#), split("[0-9][0-9][0-9]")]
    default:
      return llamas.contains(name) ? [split(Published.llama(numbers: #"\p{N}{1,3}"#))] : nil
    }
  }
}
