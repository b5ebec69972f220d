import Checkpoints
import Layers
import Tensors

/// A family of decoders: what its configuration says, and how a block of it is made of layers.
///
/// What stands in the extension below is Llama's, which most families vary; each says in its own file what it does otherwise.
protocol DecoderFamily: Sendable {
  /// `model_type` of `config.json`.
  var name: String { get }
  /// `architectures` of `config.json`.
  var architecture: String { get }
  /// What absent keys mean.
  var defaults: FamilyDefaults { get }
  /// The key of the norms' ε.
  var normKey: String { get }
  /// The key of the nonlinearity.
  var activationKey: String { get }
  /// Reads what `config.json` says.
  func configuration(_ reader: JSONReader) throws -> DecoderConfiguration
  /// The keys of `config.json` that other families do not have, for writing.
  func keys(_ configuration: DecoderConfiguration) -> [(String, JSON)]

  /// The linear layers of a block.
  var linears: [LinearName] { get }
  /// Outputs and inputs of one.
  func sizes(of name: LinearName, _ configuration: DecoderConfiguration) -> (outputs: Int, inputs: Int)
  /// Whether one has a bias.
  func hasBias(_ name: LinearName, _ configuration: DecoderConfiguration) -> Bool
  /// The block of a layer.
  func block<B: Backend>(_ layer: Int, _ assembly: inout DecoderAssembly<B>) throws -> any DecoderBlock<B>

  /// How llama.cpp keeps the family; nil where reading its files is not built.
  var gguf: GGUFRules? { get }
  /// What llama.cpp calls the modules of a block, by their paths here: known of families, too, whose files are not read.
  var ggufModules: [String: String] { get }
}

/// What keys of `config.json` mean where they are absent, by the family's class in transformers 4.46.3. (Every family has 10000 for
/// `rope_theta`, 1e-6 for ε and 0.02 for `initializer_range`.)
struct FamilyDefaults: Sendable {
  /// `vocab_size`.
  var vocabulary = 32_000
  /// `hidden_size`.
  var channels = 4096
  /// `intermediate_size`.
  var width: Int
  /// `num_hidden_layers`.
  var layers = 32
  /// `num_attention_heads`.
  var heads = 32
  /// `num_key_value_heads`; nil for as many as query heads.
  var keyValueHeads: Int?
  /// `head_dim`; nil for C/H.
  var headWidth: Int?
  /// `max_position_embeddings`.
  var positions: Int
  /// `tie_word_embeddings`.
  var tiesHead = false
}

/// The families that are built.
enum DecoderFamilies {
  static let all: [any DecoderFamily] = [Llama(), Mistral(), Qwen2(), Gemma(), Gemma2()]

  /// The family of a configuration, which has one of these names.
  static func named(_ name: String) -> any DecoderFamily {
    guard let family = all.first(where: { $0.name == name }) else { trap("there is no family \(name)") }
    return family
  }
}

extension DecoderFamily {
  var normKey: String { "rms_norm_eps" }
  var activationKey: String { "hidden_act" }

  var linears: [LinearName] { [.q, .k, .v, .o, .gate, .up, .down] }

  func sizes(of name: LinearName, _ configuration: DecoderConfiguration) -> (outputs: Int, inputs: Int) {
    let (c, f, a) = (configuration.channels, configuration.feedForward.width, configuration.attention)
    switch name {
    case .q: return (a.heads * a.headWidth, c)
    case .k, .v: return (a.keyValueHeads * a.headWidth, c)
    case .o: return (c, a.heads * a.headWidth)
    case .gate, .up: return (f, c)
    case .down: return (c, f)
    default: trap("\(self.name): a block has no layer \(name.rawValue)")
    }
  }

  func hasBias(_ name: LinearName, _ configuration: DecoderConfiguration) -> Bool {
    switch name {
    case .q, .k, .v: configuration.attention.inputBias
    case .o: configuration.attention.outputBias
    default: configuration.feedForward.hasBias
    }
  }

  /// Attention, then feed-forward, each behind its norm.
  func block<B: Backend>(_ layer: Int, _ assembly: inout DecoderAssembly<B>) throws -> any DecoderBlock<B> {
    let path = "model.layers.\(layer)"
    return SequentialBlock(
      path: path,
      attention: Normalized(
        pre: try assembly.norm(path + ".input_layernorm"), layer: try assembly.attention(path + ".self_attn", layer)),
      feedForward: Normalized(
        pre: try assembly.norm(path + ".post_attention_layernorm"), layer: try assembly.feedForward(path + ".mlp", layer)))
  }

  var gguf: GGUFRules? { nil }
  var ggufModules: [String: String] { GGUFSpelling.llama }
}
