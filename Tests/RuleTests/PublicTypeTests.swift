import Testing

/// What is public has a reader: somebody outside its target names it, or it is handed over by a member of something that has one.
@Suite struct PublicTypeTests {
  /// Public types without a reader, and why they are public nevertheless.
  static let withoutReader: [String: String] = [:]

  /// A public type and what the signatures of its public members name.
  private struct PublicType {
    var path: String
    var words: Set<String> = []
  }

  private func words(_ text: String) -> [String] {
    text.split { !$0.isLetter && !$0.isNumber && $0 != "_" }.map(String.init)
  }

  private func code(_ line: String) -> String { line.range(of: "//").map { String(line[..<$0.lowerBound]) } ?? line }

  /// The type that a line declares or extends.
  private func subject(_ line: String, _ keywords: [String]) -> String? {
    let words = words(code(line))
    guard let i = words.firstIndex(where: keywords.contains), i + 1 < words.count,
      words[..<i].allSatisfy({ ["public", "final", "indirect", "unchecked", "Sendable"].contains($0) })
    else { return nil }
    return words[i + 1]
  }

  /// The public types of a target, nested ones as types of their own, with what their public members' signatures name.
  private func publicTypes(_ files: [SourceTree.File]) -> [String: PublicType] {
    var types: [String: PublicType] = [:]
    var signatures: [String: Set<String>] = [:]
    for file in files {
      var open: [(name: String, indentation: Int, isProtocol: Bool)] = []
      var depth = 0  // parentheses that a signature has open
      for line in file.lines {
        let text = String(code(line).drop(while: \.isWhitespace))
        if text.isEmpty { continue }
        let indentation = line.prefix(while: \.isWhitespace).count
        if depth == 0 { open.removeAll { $0.indentation >= indentation && text.first != "}" } }
        if let name = subject(text, ["struct", "class", "enum", "protocol", "actor", "extension"]) {
          if text.hasPrefix("public "), types[name] == nil { types[name] = PublicType(path: file.path) }
          signatures[name, default: []].formUnion(words(text).drop { $0 != name }.dropFirst())
          open.append((name, indentation, text.contains("protocol ")))
          continue
        }
        guard let owner = open.last else { continue }
        let isRequirement = owner.isProtocol && indentation == owner.indentation + 2
        if depth > 0 || text.hasPrefix("public ") || text.hasPrefix("case ") || text.hasPrefix("-> ") || text.hasPrefix(") ->")
          || isRequirement
        {
          let signature = text.prefix { $0 != "{" }
          signatures[owner.name, default: []].formUnion(words(String(signature)))
          depth = max(0, depth + signature.filter { $0 == "(" }.count - signature.filter { $0 == ")" }.count)
        }
      }
    }
    for (name, words) in signatures { types[name]?.words.formUnion(words) }
    return types
  }

  @Test func everyPublicTypeHasAReader() throws {
    let (sources, tests) = (try SourceTree(), try SourceTree("Tests"))
    func allWords(_ files: [SourceTree.File]) -> Set<String> { Set(files.flatMap { $0.lines.flatMap { words(code($0)) } }) }
    let targets = Dictionary(grouping: sources.files, by: \.target)
    let wordsOfTargets = targets.mapValues { allWords($0) }
    let wordsOfTests = allWords(tests.files)
    var lonely: Set<String> = []
    for (target, files) in targets {
      let types = publicTypes(files)
      var reached = Set(
        types.keys.filter { name in
          wordsOfTests.contains(name) || wordsOfTargets.contains { $0.key != target && $0.value.contains(name) }
        })
      var open = Array(reached)
      while let name = open.popLast() {
        for other in types[name]?.words ?? [] where types[other] != nil && reached.insert(other).inserted { open.append(other) }
      }
      for (name, type) in types where !reached.contains(name) {
        lonely.insert(name)
        #expect(Self.withoutReader[name] != nil, "\(type.path): the public type \(name) has no reader outside \(target), nor a test")
      }
    }
    #expect(
      Set(Self.withoutReader.keys).isSubset(of: lonely), "exceptions that are none: \(Set(Self.withoutReader.keys).subtracting(lonely))")
  }
}
