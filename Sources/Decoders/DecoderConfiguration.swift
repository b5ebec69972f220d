import JSON
import Layers
import Tensors

/// The sizes and rules of a decoder, whatever its family.
///
/// Letters: C channels, F hidden width, H query heads, G key/value heads, D head width, V vocabulary.
public struct DecoderConfiguration: Equatable, Sendable {
  /// The family, by the name that `model_type` has.
  public internal(set) var familyName: String
  /// Number of blocks.
  public var layers: Int
  /// Channels C: `hidden_size`.
  public var channels: Int
  /// Vocabulary V: `vocab_size`.
  public var vocabulary: Int
  /// What embeddings are multiplied with: √C in Gemma, formed in the precision that is computed in.
  public var embeddingScale = 1.0
  /// Attention in every block.
  public var attention: AttentionRules
  /// How q and k are rotated.
  public var rotary: RotaryRules
  /// The feed-forward in every block.
  public var feedForward: FeedForwardRules
  /// The norms.
  public var norm: NormRules
  /// The head.
  public var head: HeadRules
  /// Deviation of random weights: `initializer_range`.
  public var initializerRange: Double
  /// Positions that the model was made for: `max_position_embeddings`; nil if the file does not say.
  public var contextLength: Int?
  /// Keys of the configuration that mean nothing to us, in file order.
  public var unknownKeys: [String]

  /// What a user of the model at `path` may want to know of: its unknown keys, the first twenty of them.
  public func notes(on path: String) -> [String] {
    guard !unknownKeys.isEmpty else { return [] }
    let more = unknownKeys.count > 20 ? " and \(unknownKeys.count - 20) more" : ""
    let list = unknownKeys.prefix(20).map { presentable($0) }.joined(separator: ", ") + more
    return ["\(path) has keys that mean nothing to its family and are ignored: \(list)"]
  }

  /// The family.
  var family: any DecoderFamily { DecoderFamilies.named(familyName) }
  /// The linear layers of a block, in the order of the model.
  public var linears: [LinearName] { family.linears }
  /// The number of outputs and inputs of a linear layer of a block, by its name.
  public func linearSizes(_ name: LinearName) -> (outputs: Int, inputs: Int) { family.sizes(of: name, self) }
  /// Whether a linear layer of a block has a bias.
  public func hasBias(_ name: LinearName) -> Bool { family.hasBias(name, self) }
}

/// Sizes and rules of attention.
public struct AttentionRules: Equatable, Sendable {
  /// Query heads H: `num_attention_heads`.
  public var heads: Int
  /// Key/value heads G: `num_key_value_heads`.
  public var keyValueHeads: Int
  /// Head width D: `head_dim`.
  public var headWidth: Int
  /// Whether q_proj, k_proj and v_proj have a bias.
  public var inputBias = false
  /// Whether o_proj has a bias.
  public var outputBias = false
  /// Rows that a row of each layer sees, itself included; nil for all before it.
  public var windows: [Int?]
  /// What queries are divided by the root of: `query_pre_attn_scalar`; nil for D.
  public var queryDivisor: Double?
  /// Soft cap of the scores: `attn_logit_softcapping`.
  public var softcap: Double?

  /// What scores are multiplied with.
  public var scale: Double { 1 / (queryDivisor ?? Double(headWidth)).squareRoot() }
}

/// The angles of the rotary embedding.
public struct RotaryRules: Equatable, Sendable {
  /// Base of the angles: `rope_theta`.
  public var base: Double
  /// How the angles are stretched for long contexts; nil if they are not.
  public var scaling: RotaryScaling?
  /// What each pair's frequency is divided by, one number a pair of a head (GGUF's `rope_freqs.weight`); nil for 1.
  public var divisors: [Double]?
}

/// Sizes and rules of the feed-forward.
public struct FeedForwardRules: Equatable, Sendable {
  /// Hidden width F: `intermediate_size`.
  public var width: Int
  /// The nonlinearity: `hidden_act`.
  public var activation = Activation.silu
  /// Whether gate_proj, up_proj and down_proj have a bias: `mlp_bias`.
  public var hasBias = false
}

/// The norms.
public struct NormRules: Equatable, Sendable {
  /// ε: `rms_norm_eps`.
  public var epsilon: Double
  /// What is added to the stored weight: 1 in Gemma.
  public var offset = 0.0
}

/// The head.
public struct HeadRules: Equatable, Sendable {
  /// Whether it is the embedding's own matrix: `tie_word_embeddings`.
  public var isTied: Bool
  /// Soft cap of the logits: `final_logit_softcapping`.
  public var softcap: Double?
}

/// A linear layer of a block, by the name that Hugging Face and PEFT give it.
public struct LinearName: RawRepresentable, Hashable, Sendable, CaseIterable {
  /// `q_proj`.
  public let rawValue: String
  /// The module that the layer stands in: `self_attn`.
  public let module: String

  /// The layer of this name in a module.
  init(_ name: String, in module: String) {
    rawValue = name
    self.module = module
  }

  /// The layer of this name in any family; nil if none has it.
  public init?(rawValue: String) {
    guard let name = Self.allCases.first(where: { $0.rawValue == rawValue }) else { return nil }
    self = name
  }

  /// The layers of all families, each once.
  public static let allCases: [LinearName] = {
    var seen: Set<LinearName> = []
    return DecoderFamilies.all.flatMap(\.linears).filter { seen.insert($0).inserted }
  }()

  /// True for the layers of the feed-forward, which have experts under MixLoRA.
  public var isFeedForward: Bool { module == "mlp" }

  /// Queries.
  public static let q = LinearName("q_proj", in: "self_attn")
  /// Keys.
  public static let k = LinearName("k_proj", in: "self_attn")
  /// Values.
  public static let v = LinearName("v_proj", in: "self_attn")
  /// Output of attention.
  public static let o = LinearName("o_proj", in: "self_attn")
  /// W1 of the feed-forward.
  public static let gate = LinearName("gate_proj", in: "mlp")
  /// W3 of the feed-forward.
  public static let up = LinearName("up_proj", in: "mlp")
  /// W2 of the feed-forward.
  public static let down = LinearName("down_proj", in: "mlp")
}
