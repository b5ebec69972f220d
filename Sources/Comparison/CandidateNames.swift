import Checkpoints
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
    let text: String

    /// Reads `REGEX=NAME`; the last `=` parts them.
    ///
    /// - Throws: `RuleError` for text without `=` and for an expression that is none.
    public init(_ text: String) throws {
      self.text = text
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

  /// A rule that cannot be read, or that means nothing.
  public struct RuleError: Error, CustomStringConvertible {
    /// The rule.
    public let rule: String
    /// What is wrong with it.
    public let reason: String
    /// What would be right.
    public var expected = "'REGEX=NAME'"
    /// All of it.
    public var description: String { "--map '\(rule)': \(reason); expected \(expected)." }
  }

  private let known: Set<String>
  private let byKey: [String: String]
  private let rules: [Rule]
  /// What GGUF files of the model's family call modules, and what Hugging Face does.
  private let gguf: [String: String]

  /// Names that mean one of `known`, the names of a trace.
  public init(_ known: some Sequence<String>, rules: [Rule] = []) {
    self.known = Set(known)
    self.rules = rules
    gguf = GGUFSpelling.modules(ofModelWith: self.known)
    var byKey: [String: String] = [:]
    var ambiguous: Set<String> = []
    for name in self.known.sorted() {
      let key = Self.key(name, gguf)
      if byKey.updateValue(name, forKey: key) != nil { ambiguous.insert(key) }
    }
    for key in ambiguous { byKey[key] = nil }
    self.byKey = byKey
  }

  /// Every name means itself: two files are compared without a model.
  public init(rules: [Rule] = []) { (known, byKey, self.rules, gguf) = ([], [:], rules, [:]) }

  /// The trace's name of a candidate's tensor; nil if there is none.
  ///
  /// - Throws: `RuleError` if a rule of the user's gives it a meaning that no trace has.
  public func traceName(_ name: String) throws -> String? {
    guard let (rule, meaning) = rules.lazy.compactMap({ rule in rule.meaning(of: name).map { (rule, $0) } }).first else {
      return resolved(name)
    }
    if let name = resolved(meaning) { return name }
    let near = known.map { (Self.distance($0, meaning), $0) }.sorted { $0 < $1 }.prefix(3).map(\.1)
    throw RuleError(
      rule: rule.text, reason: "\(presentable(name)) would be \(presentable(meaning)), which no tensor is called",
      expected: "a name that there is, such as \(near.joined(separator: ", "))")
  }

  private func resolved(_ name: String) -> String? {
    if known.isEmpty || known.contains(name) { return name }
    let key = Self.key(name, gguf)
    return byKey[key] ?? byKey[key + ".output"] ?? byKey[key + ".weight"]
  }

  /// How many characters are to be written, taken away or exchanged to make one name of the other (Levenshtein).
  private static func distance(_ a: String, _ b: String) -> Int {
    let (a, b) = (Array(a.utf8), Array(b.utf8.prefix(200)))
    var row = Array(0...b.count)
    for (i, x) in a.enumerated() {
      var diagonal = row[0]
      row[0] = i + 1
      for (j, y) in b.enumerated() { (diagonal, row[j + 1]) = (row[j + 1], min(row[j] + 1, row[j + 1] + 1, diagonal + (x == y ? 0 : 1))) }
    }
    return row[b.count]
  }

  /// What all spellings of a name have in common.
  private static func key(_ name: String, _ gguf: [String: String]) -> String {
    var parts = name.split(separator: ".").map(String.init)
    var front: [String] = []
    while let first = parts.first, ["adapter", "grad", "after", "exp_avg", "exp_avg_sq"].contains(first) {
      front.append(parts.removeFirst())
      if first == "adapter", let number = parts.first, Int(number) != nil { front.append(parts.removeFirst()) }
    }
    if let first = parts.first, first == "blk" || GGUFSpelling.roots.values.contains(first) {
      // `output` is the head at the front, and the end of a point's name elsewhere.
      parts = parts.enumerated().flatMap { i, part -> [String] in
        i == 0 && part == "blk"
          ? ["layers"] : i > 0 && part == "output" ? [part] : gguf[part]?.split(separator: ".").map(String.init) ?? [part]
      }
    }
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
}
