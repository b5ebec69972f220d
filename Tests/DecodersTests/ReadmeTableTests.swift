import Checkpoints
import Foundation
import Tensors
import Testing

@testable import Decoders

/// README's table of what is read says what the code reads, no more and no less.
@Suite struct ReadmeTableTests {
  /// The words in back quotes of a row's second cell, and the cell.
  private func row(_ title: String) throws -> (quoted: Set<String>, cell: String) {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let text = try String(contentsOf: root.appending(path: "README.md"), encoding: .utf8)
    let section = try #require(text.components(separatedBy: "### What is read\n").last?.components(separatedBy: "\n### ").first)
    let line = try #require(section.split(separator: "\n").first { $0.hasPrefix("| \(title)") }, "README has no row \(title)")
    let cell = String(line.split(separator: "|", omittingEmptySubsequences: false)[2])
    let pieces = cell.split(separator: "`", omittingEmptySubsequences: false)
    return (Set(pieces.indices.filter { $0 % 2 == 1 }.map { String(pieces[$0]) }), cell)
  }

  @Test func families() throws {
    #expect(try row("families").quoted == Set(DecoderFamilies.all.map(\.name)))
  }

  @Test func rotaryScaling() throws {
    let configuration: JSON = [
      "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
      "vocab_size": 11, "rope_scaling": ["rope_type": "unheard-of"],
    ]
    let error = try #require(throws: CheckpointError.self) { _ = try DecoderConfiguration(configuration, file: "config.json") }
    let names = "\(error)".split(separator: "\"", omittingEmptySubsequences: false)
    let known = try row("rotary").quoted
    #expect(known.count > 4 && known.isSubset(of: Set(names.map(String.init))), "\(error)")
    for name in names where name.allSatisfy({ $0.isLetter || $0.isNumber }) && "\(error)".contains("or \"\(name)\"") {
      #expect(known.contains(String(name)), "README does not say that \(name) is read")
    }
  }

  @Test func formats() throws {
    func names(_ formats: [WeightFormat]) -> Set<String> { Set(formats.map { ElementType.float($0).rawValue.uppercased() }) }
    func listed(_ cell: String) -> Set<String> {
      Set(cell.split { !($0.isLetter || $0.isNumber || $0 == "_") }.map { $0.uppercased() }.filter(names(WeightFormat.allCases).contains))
    }
    #expect(try listed(row("GGUF").cell) == names(WeightFormat.allCases))
    #expect(try listed(row("weights").cell) == names(WeightFormat.allCases.filter { $0.blockCount == 1 }))
    #expect(try row("GGUF").quoted == Set(DecoderFamilies.all.filter { $0.gguf != nil }.map(\.name)))
  }
}
