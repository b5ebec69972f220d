/// Which modules of a model an adapter's configuration names, as PEFT decides it.
///
/// Modules have Hugging Face's names: `model.layers.3.self_attn.q_proj`, `lm_head`.
struct ModuleSelection: Equatable, Sendable {
  /// How modules are named.
  enum Names: Equatable, Sendable {
    /// Full names, or what stands behind a point in them.
    case listed([String])
    /// A regular expression for whole names.
    case pattern(ModulePattern)
    /// All linear layers but the head.
    case allLinear
  }

  /// `target_modules`.
  var targets: Names
  /// `exclude_modules`; nil for none.
  var excluded: Names?
  /// `layers_to_transform`: numbers of blocks, and whether the file has one number alone; nil for all.
  var layers: Layers?
  /// `layers_pattern`: what the list of blocks may be called; empty for any name.
  var layersPatterns: [LayersPattern] = []

  /// Numbers of blocks.
  struct Layers: Equatable, Sendable {
    let numbers: Set<Int>
    let isList: Bool
  }

  /// A name of the list of blocks, which PEFT reads as a regular expression.
  struct LayersPattern: Equatable, Sendable {
    let text: String
    /// For what stands before a block's number.
    let pattern: ModulePattern

    init(_ text: String) throws {
      self.text = text
      pattern = try ModulePattern("(?:^|.*?\\.)\(text)\\.")
    }
  }

  /// The layers of these names in every block.
  init(_ names: Set<LinearName>) { targets = .listed(LinearName.allCases.filter(names.contains).map(\.rawValue)) }

  init(_ targets: Names) { self.targets = targets }

  /// Whether a module is chosen.
  func contains(_ path: String) -> Bool {
    if let excluded, excluded.match(path) { return false }
    guard targets.match(path) else { return false }
    // A full name is chosen whatever the layers.
    guard case .listed(let names) = targets, let layers, !layers.numbers.isEmpty, !names.contains(path) else { return true }
    guard let number = layer(of: path) else { return false }
    return layers.numbers.contains(number)
  }

  /// Whether what is chosen in one block is chosen in all.
  var isAlikeInAllBlocks: Bool {
    guard case .listed(let names) = targets else { return targets == .allLinear && excluded == nil && layers == nil }
    return excluded == nil && layers == nil && names.allSatisfy { !$0.contains(".") }
  }

  /// The number of the block that a module stands in: the first number in its name, behind a name that the patterns allow.
  private func layer(of path: String) -> Int? {
    let parts = path.split(separator: ".", omittingEmptySubsequences: false)
    for (i, part) in parts.enumerated().dropLast() where i > 0 {
      guard part.utf8.allSatisfy(ModulePatternParser.digitBytes.contains), let number = Int(part) else { continue }
      let before = parts[..<i].joined(separator: ".") + "."
      // Without a pattern PEFT asks for two names before the number.
      if layersPatterns.isEmpty ? i > 1 : layersPatterns.contains(where: { $0.pattern.matches(before) }) { return number }
    }
    return nil
  }
}

extension ModuleSelection.Names {
  func match(_ path: String) -> Bool {
    switch self {
    case .listed(let names): names.contains { $0 == path || path.hasSuffix("." + $0) }
    case .pattern(let pattern): pattern.matches(path)
    case .allLinear: path != "lm_head" && path != "model.embed_tokens"
    }
  }
}

/// Numbers that stand under patterns of module names: `rank_pattern`, `alpha_pattern`. The first pattern that matches decides.
struct ModuleNumbers<Number: Equatable & Sendable>: Equatable, Sendable {
  /// A pattern with its number.
  struct Rule: Equatable, Sendable {
    let text: String
    let number: Number
    /// For a whole name or what stands behind a point in it.
    let pattern: ModulePattern

    init(_ text: String, _ number: Number) throws {
      (self.text, self.number) = (text, number)
      pattern = try ModulePattern("(.*\\.)?(\(text))$")
    }
  }

  var rules: [Rule] = []

  /// The number of a module; nil if no pattern matches.
  func number(of path: String) -> Number? { rules.first { $0.pattern.matches(path) }?.number }
}
