import Checkpoints
import Tokenization

/// A tokenizer for the golden models: 61 tokens, of which 58 are single characters.
package enum TalkingModel {
  /// The control tokens, id 0 to 2.
  package static let controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
  /// The characters, as a byte-level vocabulary writes them: "Ġ" is the blank, "Ċ" the end of a line.
  package static let characters = (Array("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,?!") + ["Ġ", "Ċ"]).map(String.init)

  package static func tokenizer() throws -> Tokenizer {
    var description = try TokenizerDescription(JSON(parsing: json(), file: "talking model"), file: "talking model")
    description.endToken = 2
    return try Tokenizer(description)
  }

  /// The same as `tokenizer.json`; without its control tokens for the last two of `controls`.
  package static func json(hasChat: Bool = true) -> String {
    let added = (hasChat ? controls : ["<|endoftext|>", "<one>", "<two>"]).enumerated().map { i, text in
      #"{"id":\#(i),"content":"\#(text)","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}"#
    }
    let vocabulary = ((hasChat ? controls : ["<|endoftext|>", "<one>", "<two>"]) + characters).enumerated().map { #""\#($1)":\#($0)"# }
    return #"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[\#(added.joined(separator: ","))],"normalizer":null,"#
      + #""pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"post_processor":null,"#
      + #""decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},"#
      + #""model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"#
      + #""fuse_unk":false,"byte_fallback":false,"ignore_merges":false,"vocab":{\#(vocabulary.joined(separator: ","))},"merges":[]}}"#
  }
}
