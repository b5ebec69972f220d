import Testing

/// SwiftPM lets an import of a transitive target pass, so the arrows are held here.
@Suite struct RuleTests {
  /// Target → targets that it may import. An arrow includes what its target may import.
  static let arrows: [String: [String]] = [
    "Platform": [],
    "JSON": ["Platform"],
    "Templates": ["JSON", "Platform"],
    "CVectors": [],
    "Tensors": ["CVectors"],
    "COpenBLAS": [],
    "CPUBackend": ["Platform", "Tensors", "COpenBLAS"],
    "CUDABackend": ["Platform", "Tensors", "CCUDA"],
    "CCUDA": [],
    "Collectives": ["Platform", "CMPI"],
    "CMPI": [],
    "Layers": ["Platform", "Tensors"],
    "Checkpoints": ["JSON", "Platform", "Tensors"],
    "Decoders": ["Layers", "Checkpoints"],
    "Tokenization": ["Checkpoints", "Templates"],
    "Samples": ["Layers", "Tokenization"],
    "Evaluation": ["Collectives", "Decoders", "Samples"],
    "Training": ["Platform", "Evaluation", "Traces"],
    "Generation": ["Platform", "Decoders", "Tokenization"],
    "Traces": ["Decoders"],
    "Stepping": ["Platform", "Traces", "Training"],
    "Explaining": ["CExplorer", "Platform", "Stepping"],
    "CExplorer": [],
    "Conformance": ["Platform", "Decoders", "Traces"],
    "Comparison": ["Training", "Conformance"],
    "MixLoRA": ["Platform", "CPUBackend", "CUDABackend", "Generation", "Explaining", "Comparison"],
    "CInterface": ["CMixLoRA", "CEmbedded", "MixLoRA"],
    "MixLoRACommand": ["CEmbedded", "Platform", "CPUBackend", "CUDABackend", "Generation", "Explaining", "Comparison"],
  ]
  /// Modules from outside, and who may import them.
  static let outside: [String: [String]] = [
    "SystemPackage": ["Platform"],
    "RealModule": ["Platform"],
    "Glibc": ["Platform"],
    "Darwin": ["Platform"],
    "Musl": ["Platform"],
    "Synchronization": ["CPUBackend", "Collectives", "Conformance", "CInterface", "MixLoRACommand"],
    "ArgumentParser": ["MixLoRACommand"],
  ]

  static func reachable(from target: String) -> Set<String> {
    var reached: Set<String> = []
    var open = arrows[target] ?? []
    while let next = open.popLast() {
      if reached.insert(next).inserted { open += arrows[next] ?? [] }
    }
    return reached
  }

  @Test func everyImportFollowsAnArrow() throws {
    let tree = try SourceTree()
    #expect(tree.files.count > 20, "the tree was not found")
    for file in tree.files {
      #expect(Self.arrows[file.target] != nil, "\(file.path): \(file.target) has no arrows")
      for line in file.lines {
        let words = line.split(whereSeparator: \.isWhitespace)
        guard let i = words.firstIndex(of: "import"), words[..<i].allSatisfy({ $0.hasPrefix("@") || $0 == "public" || $0 == "internal" }),
          i + 1 < words.count
        else { continue }
        let module = String(words.last!.split(separator: ".")[0])
        let isAllowed = Self.outside[module]?.contains(file.target) ?? Self.reachable(from: file.target).contains(module)
        #expect(isAllowed, "\(file.path) imports \(module), which no arrow allows")
      }
    }
  }

  /// What `Backend` requires is documented there; a witness needs a comment only where it has something to add.
  private func requirementsOfBackend(_ tree: SourceTree) -> Set<Substring> {
    let lines = tree.files.first { $0.path == "Tensors/Backend.swift" }?.lines.prefix { $0 != "}" } ?? []
    return Set(lines.compactMap { name(in: $0, after: ["func ", "var "]) })
  }

  /// The name that follows one of the keywords of a declaration.
  private func name(in line: String, after keywords: [String]) -> Substring? {
    for keyword in keywords {
      guard let range = line.range(of: keyword), line[..<range.lowerBound].allSatisfy({ $0.isLetter || " ()@".contains($0) }) else {
        continue
      }
      let name = line[range.upperBound...].prefix { $0.isLetter || $0.isNumber || $0 == "_" }
      if !name.isEmpty { return name }
    }
    return nil
  }

  @Test func everyPublicDeclarationHasADocComment() throws {
    let tree = try SourceTree()
    let requirements = requirementsOfBackend(tree)
    #expect(requirements.count > 40, "the protocol was not read")
    for file in tree.files {
      var isBackend = false
      for (n, line) in file.lines.enumerated() {
        if let first = line.first, first.isLetter {
          isBackend =
            line.hasPrefix("extension CPUBackend") || line.hasPrefix("extension CUDABackend") || line.hasPrefix("extension NaiveBackend")
            || line.contains(": Backend")
        }
        let text = line.drop(while: \.isWhitespace)
        guard text.hasPrefix("public ") || text.hasPrefix("@inlinable public ") else { continue }
        // An alias fills in an associated type, which is documented where it is declared; an initializer takes what its type's members say.
        guard !text.hasPrefix("public import"), !text.hasPrefix("public typealias"), !text.hasPrefix("public init") else { continue }
        if isBackend, let name = name(in: line, after: ["func ", "var "]), requirements.contains(name) { continue }
        var above = n - 1
        while above >= 0, file.lines[above].drop(while: \.isWhitespace).hasPrefix("@") { above -= 1 }
        let isDocumented = above >= 0 && file.lines[above].drop(while: \.isWhitespace).hasPrefix("///")
        #expect(isDocumented, "\(file.path):\(n + 1): no doc comment above `\(text)`")
      }
    }
  }

  @Test func noFileIsLongerThanAReaderCanHold() throws {
    for file in try SourceTree().files {
      #expect(file.lines.count <= 400, "\(file.path) has \(file.lines.count) lines")
    }
  }
}
