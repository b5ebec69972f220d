import Decoders
import Traces

/// What the names of a candidate mean: the names of a trace, from the spellings that Hugging Face, PEFT, MoE-PEFT and GGUF files have.
///
/// First the user's own rules, `REGEX=NAME`, of which the first that matches the whole name decides (`$1` is what its first group
/// matched); then the name as it is; then what both spellings have in common when wrappers' prefixes, adapter names and the root of the
/// module tree are taken away: `base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight` and
/// `mixlora.layers.0.self_attn.q_proj.lora_A.weight` are one tensor. A module's path alone means its output.
public struct CandidateNames: Sendable {
  /// A rule of the user: names that a regular expression matches, and what they mean.
  public struct Rule: @unchecked Sendable {  // a Regex is a value; the standard library has not marked it yet
    let pattern: Regex<AnyRegexOutput>
    let name: String

    /// Reads `REGEX=NAME`; the last `=` parts them.
    ///
    /// - Throws: `RuleError` for text without `=` and for an expression that is none.
    public init(_ text: String) throws {
      guard let equals = text.lastIndex(of: "=") else { throw RuleError(rule: text, reason: "it has no '='") }
      do { pattern = try Regex(String(text[..<equals])) } catch {
        throw RuleError(rule: text, reason: "its regular expression is wrong: \(error)")
      }
      name = String(text[text.index(after: equals)...])
    }

    func meaning(of candidate: String) -> String? {
      guard let match = try? pattern.wholeMatch(in: candidate) else { return nil }
      var meaning = name
      for group in stride(from: match.output.count - 1, through: 0, by: -1) {
        meaning.replace("$\(group)", with: match.output[group].substring.map(String.init) ?? "")
      }
      return meaning
    }
  }

  /// A rule that cannot be read.
  public struct RuleError: Error, CustomStringConvertible {
    /// The rule.
    public let rule: String
    /// What is wrong with it.
    public let reason: String
    /// Both.
    public var description: String { "--map '\(rule)': \(reason); expected 'REGEX=NAME'." }
  }

  private let known: Set<String>
  private let byKey: [String: String]
  private let rules: [Rule]

  /// Names that mean one of `known`, the names of a trace.
  public init(_ known: some Sequence<String>, rules: [Rule] = []) {
    self.known = Set(known)
    self.rules = rules
    var byKey: [String: String] = [:]
    var ambiguous: Set<String> = []
    for name in self.known.sorted() where byKey.updateValue(name, forKey: Self.key(name)) != nil { ambiguous.insert(Self.key(name)) }
    for key in ambiguous { byKey[key] = nil }
    self.byKey = byKey
  }

  /// Every name means itself: two files are compared without a model.
  public init(rules: [Rule] = []) { (known, byKey, self.rules) = ([], [:], rules) }

  /// The trace's name of a candidate's tensor; nil if there is none.
  public func traceName(_ name: String) -> String? {
    let name = rules.lazy.compactMap { $0.meaning(of: name) }.first ?? name
    if known.isEmpty || known.contains(name) { return name }
    let key = Self.key(name)
    return byKey[key] ?? byKey[key + ".output"] ?? byKey[key + ".weight"]
  }

  /// What all spellings of a name have in common.
  private static func key(_ name: String) -> String {
    var parts = name.split(separator: ".").map(String.init)
    var front: [String] = []
    while let first = parts.first, ["adapter", "grad", "after", "exp_avg", "exp_avg_sq"].contains(first) {
      front.append(parts.removeFirst())
      if first == "adapter", let number = parts.first, Int(number) != nil { front.append(parts.removeFirst()) }
    }
    if parts.first == "blk" || ["token_embd", "output_norm", "output"].contains(parts.first ?? "") { parts = gguf(parts) }
    parts.removeAll { wrappers.contains($0) }
    if let i = parts.firstIndex(where: { $0 == "lora_A" || $0 == "lora_B" }), parts.indices.contains(i + 1), parts[i + 1] != "weight" {
      parts.remove(at: i + 1)  // PEFT's name of the adapter
    }
    if let layers = parts.firstIndex(of: "layers") {
      parts.removeFirst(layers)
    } else {
      while parts.first == "model" { parts.removeFirst() }
    }
    return (front + parts).joined(separator: ".")
  }

  /// What frameworks put around a module without changing it.
  private static let wrappers: Set = [
    "module", "_orig_mod", "base_model", "base_layer", "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
  ]

  private static func gguf(_ parts: [String]) -> [String] {
    let modules = [
      "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
      "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
      "ffn_norm": "post_attention_layernorm", "token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head", "blk": "layers",
    ]
    // `output` is the head at the front, and the end of a point's name elsewhere.
    return parts.enumerated().map { i, part in i > 0 && part == "output" ? part : modules[part] ?? part }
  }
}
