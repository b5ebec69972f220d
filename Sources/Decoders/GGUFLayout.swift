import Checkpoints

/// How a file names and orders the tensors that a model calls by Hugging Face's names.
protocol TensorLayout: Sendable {
  /// The file's name of a tensor.
  func name(_ modelName: String) -> String
  /// For each row of the model's tensor its row in the file; nil where they are the same.
  func rowOrder(_ modelName: String, rows: Int) -> [Int]?
  /// Whether a tensor, by the file's name, carries nothing that the model has to ask for.
  func mayGoUnread(_ name: String) -> Bool
}

/// How llama.cpp keeps a family.
struct GGUFRules: Sendable {
  /// `general.architecture`.
  let architecture: String
  /// Whether it rotates pairs of neighbours, so that the rows of q and k are in another order (`GGUFLayout`).
  let rotatesNeighbors: Bool
  /// Whether q, k and v always have a bias.
  let hasInputBias: Bool

  /// The family of an architecture; nil if none has it.
  static func family(of architecture: String) -> (any DecoderFamily)? {
    DecoderFamilies.all.first { $0.gguf?.architecture == architecture }
  }
}

/// llama.cpp's names and, for its architecture "llama", its order of the rows of q and k.
///
/// That architecture (which carries Llama, SmolLM2 and Mistral) rotates the pairs (2j, 2j + 1) of a head, Hugging Face the pairs
/// (j, j + D/2). The converter therefore moves row h·D/2 + j of every head, h = 0 or 1, to row 2j + h, and we move it back; with the
/// wrong order everything still runs and every logit is wrong. Quantized blocks run along a row, so whole rows move. Other
/// architectures (qwen2) pair as Hugging Face does and are left alone.
struct GGUFLayout: TensorLayout {
  /// The tensor with the divisors of the rotary frequencies, read with the configuration.
  static let divisors = "rope_freqs.weight"

  private let headWidth: Int
  private let isPermuted: Bool
  private let modules: [String: String]

  init(_ configuration: DecoderConfiguration) {
    headWidth = configuration.attention.headWidth
    isPermuted = configuration.family.gguf?.rotatesNeighbors ?? false
    modules = configuration.family.ggufModules
  }

  func name(_ modelName: String) -> String {
    // model.layers.N.module….weight
    let parts = modelName.split(separator: ".", omittingEmptySubsequences: false)
    if parts.count >= 2, parts.last == "weight", let root = GGUFSpelling.roots[parts.dropLast().joined(separator: ".")] {
      return "\(root).weight"
    }
    guard parts.count >= 5, parts[0] == "model", parts[1] == "layers", let kind = parts.last,
      let module = modules[parts[3..<parts.count - 1].joined(separator: ".")]
    else { return modelName }
    return "blk.\(parts[2]).\(module).\(kind)"
  }

  func rowOrder(_ modelName: String, rows: Int) -> [Int]? {
    let width = headWidth
    guard isPermuted, modelName.contains(".self_attn.q_proj.") || modelName.contains(".self_attn.k_proj."), rows % width == 0 else {
      return nil
    }
    return (0..<rows).map { row in
      let (h, j) = (row % width).quotientAndRemainder(dividingBy: width / 2)
      return row - row % width + 2 * j + h
    }
  }

  func mayGoUnread(_ name: String) -> Bool { name == Self.divisors }
}

/// What GGUF files call modules, from the families' own tables.
package enum GGUFSpelling {
  /// Modules outside of the layers.
  package static let roots = ["model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"]

  /// Llama's modules of a layer, which most families have.
  static let llama = [
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
  ]

  /// Hugging Face's paths by llama.cpp's spellings, in the family whose modules some names have, in either spelling.
  package static func modules(ofModelWith names: some Sequence<String>) -> [String: String] {
    let parts = Set(names.flatMap { $0.split(separator: ".") })
    func known(_ family: any DecoderFamily) -> Int {
      family.ggufModules.count { model, file in parts.contains(file[...]) || model.split(separator: ".").last.map(parts.contains) == true }
    }
    let family = DecoderFamilies.all.max { known($0) < known($1) } ?? Llama()  // the first of those that know as many
    return Dictionary((roots.map { ($1, $0) } + family.ggufModules.map { ($1, $0) })) { first, _ in first }
  }
}
