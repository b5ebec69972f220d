import Comparison
import Decoders
import Testing

/// What the names of a candidate mean.
@Suite struct CandidateNamesTests {
  private static let llama = ["input_layernorm", "post_attention_layernorm"]
  private static let gemma2 = llama + ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
  private static let linears =
    ["q_proj", "k_proj", "v_proj", "o_proj"].map { "self_attn.\($0)" } + ["gate_proj", "up_proj", "down_proj"].map { "mlp.\($0)" }

  private func known(_ norms: [String]) -> [String] {
    ["model.embed_tokens", "model.norm", "lm_head"].flatMap { ["\($0).weight", "\($0).output", "grad.\($0).output"] }
      + (norms + Self.linears).flatMap { module in
        (0..<2).flatMap {
          ["model.layers.\($0).\(module).output", "grad.model.layers.\($0).\(module).output", "grad.model.layers.\($0).\(module).weight"]
        }
      }
  }

  @Test(arguments: [llama, gemma2])
  func everyGGUFSpellingOfTheFamilyIsUnderstood(_ norms: [String]) throws {
    let names = CandidateNames(known(norms))
    let spellings = GGUFSpelling.modules(ofModelWith: known(norms))
    #expect(spellings.count == norms.count + Self.linears.count + GGUFSpelling.roots.count)
    for (file, module) in spellings where GGUFSpelling.roots[module] == nil {
      #expect(try names.traceName("blk.1.\(file).output") == "model.layers.1.\(module).output")
      #expect(try names.traceName("blk.1.\(file)") == "model.layers.1.\(module).output")
      #expect(try names.traceName("grad.blk.0.\(file).weight") == "grad.model.layers.0.\(module).weight")
    }
    #expect(try names.traceName("token_embd") == "model.embed_tokens.output" && names.traceName("output") == "lm_head.output")
    #expect(try names.traceName("grad.output_norm.output") == "grad.model.norm.output")
  }

  @Test func gemma2sNormsAreNotLlamas() throws {
    let (llama, gemma2) = (CandidateNames(known(Self.llama)), CandidateNames(known(Self.gemma2)))
    #expect(try llama.traceName("blk.0.ffn_norm") == "model.layers.0.post_attention_layernorm.output")
    #expect(try gemma2.traceName("blk.0.ffn_norm") == "model.layers.0.pre_feedforward_layernorm.output")
    #expect(try gemma2.traceName("blk.0.post_attention_norm") == "model.layers.0.post_attention_layernorm.output")
    #expect(try gemma2.traceName("blk.0.post_ffw_norm") == "model.layers.0.post_feedforward_layernorm.output")
    // Two files in the other spelling: the reference's own names say which family it is.
    let files = CandidateNames(["blk.0.ffn_norm.output", "blk.0.post_attention_norm.output", "blk.0.post_ffw_norm.output"])
    #expect(try files.traceName("model.layers.0.pre_feedforward_layernorm") == "blk.0.ffn_norm.output")
  }

  @Test func aRuleThatMeansNoTensorIsRefusedWithTheNearestNames() throws {
    let rule = try CandidateNames.Rule("h(\\d)=model.layers.$1.input_layernom.output")
    let names = CandidateNames(known(Self.llama), rules: [rule])
    let error = #expect(throws: CandidateNames.RuleError.self) { _ = try names.traceName("h1") }
    let text = error?.description ?? ""
    #expect(
      text.contains("'h(\\d)=model.layers.$1.input_layernom.output'") && text.contains("h1 would be model.layers.1.input_layernom.output"))
    #expect(text.contains("such as model.layers.1.input_layernorm.output,"), "\(text)")
    #expect(try names.traceName("other") == nil)
  }
}
