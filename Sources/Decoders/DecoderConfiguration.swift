import Layers
import Tensors

/// The sizes and rules of a decoder, whatever its family.
///
/// Letters: C channels, F hidden width, H query heads, G key/value heads, D head width, V vocabulary.
public struct DecoderConfiguration: Equatable, Sendable {
  /// Number of blocks.
  public var layers: Int
  /// Channels C: `hidden_size`.
  public var channels: Int
  /// Hidden width F of the feed-forward: `intermediate_size`.
  public var hiddenWidth: Int
  /// Query heads H: `num_attention_heads`.
  public var heads: Int
  /// Key/value heads G: `num_key_value_heads`.
  public var keyValueHeads: Int
  /// Head width D: `head_dim`.
  public var headWidth: Int
  /// Vocabulary V: `vocab_size`.
  public var vocabulary: Int
  /// ε of the norms: `rms_norm_eps`.
  public var normEpsilon: Double
  /// Base of the rotary angles: `rope_theta`.
  public var ropeBase: Double
  /// How the rotary angles are stretched for long contexts; nil if they are not.
  public var ropeScaling: RotaryScaling?
  /// What each pair's rotary frequency is divided by, one number a pair of a head (GGUF's `rope_freqs.weight`); nil for 1.
  public var ropeDivisors: [Double]?
  /// Whether q_proj, k_proj and v_proj have a bias.
  public var queryKeyValueBias: Bool
  /// Whether o_proj has a bias.
  public var outputBias: Bool
  /// Whether gate_proj, up_proj and down_proj have a bias: `mlp_bias`.
  public var feedForwardBias: Bool
  /// Rows that a row of a windowed layer sees, itself included; nil without a window.
  public var window: Int?
  /// The first layer that has the window.
  public var firstWindowedLayer: Int
  /// The nonlinearity of the feed-forward: `hidden_act`.
  public var activation = Activation.silu
  /// What is added to a norm's stored weight: 1 in Gemma.
  public var normOffset = 0.0
  /// What embeddings are multiplied with: √C in Gemma.
  public var embeddingScale = 1.0
  /// What queries are divided by the root of: `query_pre_attn_scalar`; nil for the head width.
  public var queryDivisor: Double?
  /// Soft cap of attention's scores: `attn_logit_softcapping`.
  public var attentionSoftcap: Double?
  /// Soft cap of the logits: `final_logit_softcapping`.
  public var logitSoftcap: Double?
  /// Whether the head is the embedding's own matrix: `tie_word_embeddings`.
  public var tiesHead: Bool
  /// Deviation of random weights: `initializer_range`.
  public var initializerRange: Double
  /// Positions that the model was made for: `max_position_embeddings`; nil if the file does not say.
  public var contextLength: Int?
  /// Keys of the configuration that mean nothing to us, in file order.
  public var unknownKeys: [String]

  /// What scores are multiplied with.
  public var queryScale: Double { 1 / (queryDivisor ?? Double(headWidth)).squareRoot() }

  /// The window of a layer; nil if its rows see all before them.
  public func window(ofLayer layer: Int) -> Int? { layer >= firstWindowedLayer ? window : nil }

  /// Whether a linear layer of a block has a bias.
  public func hasBias(_ name: LinearName) -> Bool {
    switch name {
    case .q, .k, .v: queryKeyValueBias
    case .o: outputBias
    case .gate, .up, .down: feedForwardBias
    }
  }

  /// The number of outputs and inputs of a linear layer of a block, by its name.
  public func linearSizes(_ name: LinearName) -> (outputs: Int, inputs: Int) {
    switch name {
    case .q: (heads * headWidth, channels)
    case .k, .v: (keyValueHeads * headWidth, channels)
    case .o: (channels, heads * headWidth)
    case .gate, .up: (hiddenWidth, channels)
    case .down: (channels, hiddenWidth)
    }
  }
}

/// The linear layers of a block, by the names that Hugging Face and PEFT give them.
public enum LinearName: String, CaseIterable, Sendable {
  /// Queries.
  case q = "q_proj"
  /// Keys.
  case k = "k_proj"
  /// Values.
  case v = "v_proj"
  /// Output of attention.
  case o = "o_proj"
  /// W1 of the feed-forward.
  case gate = "gate_proj"
  /// W3 of the feed-forward.
  case up = "up_proj"
  /// W2 of the feed-forward.
  case down = "down_proj"

  /// True for the layers of the feed-forward, which have experts under MixLoRA.
  public var isFeedForward: Bool { self == .gate || self == .up || self == .down }
  /// The module that the layer stands in.
  public var module: String { isFeedForward ? "mlp" : "self_attn" }
}
