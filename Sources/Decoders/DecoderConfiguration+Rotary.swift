import Checkpoints
import Layers

extension RotaryRules {
  /// Base and scaling of the rotary angles: `rope_theta` and `rope_scaling`, or both inside `rope_parameters`, where transformers 5 puts
  /// them.
  ///
  /// transformers 4.57.6 decides what `rope_scaling` means, transformers 5 what `rope_parameters` does; they differ in where LongRoPE's
  /// first training stands.
  /// - Parameters:
  ///   - positions: `max_position_embeddings`; nil if that is null.
  ///   - headWidth: D.
  /// - Returns: the rules, and the keys in there that mean nothing.
  /// - Throws: `CheckpointError` naming the key; what is not built is refused by name.
  static func read(_ reader: JSONReader, positions: Int?, headWidth: Int) throws -> (rules: RotaryRules, unknownKeys: [String]) {
    var rules = RotaryRules(base: try reader.number("rope_theta", default: 10_000, "a number > 0", where: isPositive))
    var unknown: [String] = []
    for key in ["rope_parameters", "rope_scaling"] {
      guard let value = reader.value(key), !value.isEmptyOrOff else { continue }
      let scale = try RotaryScalingReader(reader, key, value, positions: positions, headWidth: headWidth)
      rules.base = try scale.base ?? rules.base
      let found = try scale.scaling(base: rules.base)
      if key == "rope_scaling", let other = reader.value("rope_parameters"), !other.isEmptyOrOff, rules.scaling != found {
        throw reader.error(key, value, "what rope_parameters says, \(other.excerpt)")
      }
      rules.scaling = found
      unknown += scale.keys.unknownNames
    }
    return (rules, unknown)
  }

  fileprivate static func isPositive(_ value: Double) -> Bool { value > 0 && value.isFinite }
}

/// Reads one object of `rope_scaling` or `rope_parameters`.
private struct RotaryScalingReader {
  let keys: JSONReader
  private let top: JSONReader
  private let key: String
  private let value: JSON
  private let positions: Int?
  private let headWidth: Int
  /// Whether transformers 5 wrote it.
  private var isFive: Bool { key == "rope_parameters" }

  init(_ top: JSONReader, _ key: String, _ value: JSON, positions: Int?, headWidth: Int) throws {
    (self.top, self.key, self.value, self.positions, self.headWidth) = (top, key, value, positions, headWidth)
    keys = try JSONReader(value, file: top.file, path: key)
    if let nested = value.objectValue?.members.first(where: { $0.value.objectValue != nil }) {
      throw keys.error(nested.key, nested.value, "a number or a name: angles of their own for each type of layer are not built yet")
    }
    try keys.refuse("partial_rotary_factor", unless: { $0.doubleValue == 1 }, "1 or nothing: whole heads rotated; parts are not built yet")
  }

  /// `rope_theta`, which transformers 5 has in here.
  var base: Double? {
    get throws {
      guard isFive, keys.value("rope_theta") != nil else { return nil }
      return try keys.number("rope_theta", "a number > 0", where: RotaryRules.isPositive)
    }
  }

  /// nil where the angles stay as they are.
  func scaling(base: Double) throws -> RotaryScaling? {
    switch try kind() {
    case "linear": return .linear(factor: try number("factor"))
    case "dynamic": return .dynamic(factor: try number("factor"), originalPositions: try modelPositions())
    case "yarn": return .yarn(try yarn(base: base))
    case "longrope": return .longRoPE(try longRoPE())
    case "llama3": return .llama3(try llama3())
    default: return nil
    }
  }

  /// `rope_type`, or `type` as it was called first; LongRoPE was "su" then.
  private func kind() throws -> String {
    let names = ["default", "linear", "dynamic", "yarn", "longrope", "llama3"]
    let found = ["rope_type", "type"].compactMap { keys.value($0) }
    guard let first = found.first else {
      if isFive { return "default" }
      throw keys.error("rope_type", "nothing", names.map { "\"\($0)\"" }.joined(separator: " or "))
    }
    let kinds = found.map { $0 == "su" ? "longrope" : $0 }
    guard let kind = kinds[0].stringValue, names.contains(kind), kinds.allSatisfy({ $0 == kinds[0] }) else {
      let expected = found.count > 1 && kinds[0] != kinds[1] ? "the same under rope_type and type" : "one that is built"
      throw keys.error(
        keys["rope_type"] != nil ? "rope_type" : "type", first, "\(expected): \(names.map { "\"\($0)\"" }.joined(separator: " or "))")
    }
    return kind
  }

  private func yarn(base: Double) throws -> RotaryScaling.YaRN {
    let original = try originalPositions(isInTop: isFive) ?? modelPositions()
    var yarn = RotaryScaling.YaRN(factor: try number("factor"), originalPositions: original)
    guard base != 1 else { throw top.error(isFive ? "rope_parameters.rope_theta" : "rope_theta", "1", "another base under \"yarn\"") }
    func turns(_ key: String, _ fallback: Double) throws -> Double {
      let found = try keys.number(key, default: fallback, "a number ≥ 0") { $0 >= 0 && $0.isFinite }
      return found == 0 ? fallback : found  // as where the key is absent
    }
    (yarn.fast, yarn.slow) = (try turns("beta_fast", yarn.fast), try turns("beta_slow", yarn.slow))
    yarn.isTruncated = keys["truncate"] == .null ? false : try keys.bool("truncate", default: true)
    _ = keys.value("truncate")
    // Where mscale and mscale_all_dim are both there, one over the other.
    let (m, all) = (try finite("mscale") ?? 0, try finite("mscale_all_dim") ?? 0)
    if m != 0, all != 0 {
      yarn.magnitude = RotaryScaling.YaRN.magnitude(yarn.factor, by: m) / RotaryScaling.YaRN.magnitude(yarn.factor, by: all)
    }
    yarn.magnitude = try magnitude(yarn.magnitude)
    return yarn
  }

  private func longRoPE() throws -> RotaryScaling.LongRoPE {
    let (short, long) = (try divisors("short_factor"), try divisors("long_factor"))
    let stated = try originalPositions(isInTop: true)
    let original = try stated ?? modelPositions()
    var factor = try keys.value("factor").map { _ in try number("factor") }
    // 4.57.6 prefers the ratio of the positions, 5 the factor.
    if stated != nil, !isFive || factor == nil { factor = try Double(modelPositions()) / Double(original) }
    if isFive, factor == nil { factor = 1 }
    var magnitude = factor.map { $0 > 1 ? (1 + Double.log($0) / Double.log(Double(original))).squareRoot() : 1 }
    if keys.value("attention_factor") != nil { magnitude = try self.magnitude(1) }
    guard let magnitude, magnitude.isFinite else {
      throw keys.error(
        "factor", keys["factor"] ?? .null, "a number > 0 from which, with \(original) positions, cos and sin get their factor")
    }
    return RotaryScaling.LongRoPE(short: short, long: long, originalPositions: original, magnitude: magnitude)
  }

  private func llama3() throws -> RotaryScaling.Llama3 {
    let (factor, low, high) = (try number("factor"), try number("low_freq_factor"), try number("high_freq_factor"))
    guard high > low else { throw keys.error("high_freq_factor", keys["high_freq_factor"] ?? .null, "more than low_freq_factor") }
    let original = isFive ? try originalPositions(isInTop: true).map { Double($0) } : nil
    return RotaryScaling.Llama3(
      factor: factor, lowFrequencyFactor: low, highFrequencyFactor: high,
      originalPositions: try original ?? (isFive ? Double(modelPositions()) : number("original_max_position_embeddings")))
  }

  // MARK: Numbers

  private func number(_ key: String) throws -> Double { try keys.number(key, "a number > 0", where: RotaryRules.isPositive) }

  private func finite(_ key: String) throws -> Double? {
    guard keys.value(key) != nil else { return nil }
    return try keys.number(key, "a finite number, or null") { $0.isFinite }
  }

  private func magnitude(_ fallback: Double) throws -> Double {
    let magnitude = try finite("attention_factor") ?? fallback
    guard magnitude.isFinite else { throw keys.error("mscale_all_dim", keys["mscale_all_dim"] ?? .null, "a finite ratio to mscale") }
    return magnitude
  }

  private func divisors(_ key: String) throws -> [Double] {
    let expected = "\(headWidth / 2) numbers > 0, one for each pair of a head"
    let values = try keys.required(key, expected).arrayValue?.map { $0.doubleValue ?? .nan } ?? []
    guard values.count == headWidth / 2, values.allSatisfy(RotaryRules.isPositive) else {
      throw keys.error(key, keys[key] ?? .null, expected)
    }
    return values
  }

  /// `max_position_embeddings`.
  private func modelPositions() throws -> Int {
    guard let positions else { throw top.error("max_position_embeddings", "null", "a whole number > 0, on which the angles depend") }
    return positions
  }

  /// `original_max_position_embeddings`: transformers 4 has LongRoPE's beside `rope_scaling` and yarn's in there, 5 prefers what stands
  /// beside `rope_parameters`.
  private func originalPositions(isInTop: Bool) throws -> Int? {
    let name = "original_max_position_embeddings"
    func positions(_ reader: JSONReader) throws -> Int? {
      guard reader.value(name) != nil else { return nil }
      return try reader.integer(name, in: 1...(1 << 40))
    }
    if isInTop, let found = try positions(top) { return found }
    return isInTop && !isFive ? nil : try positions(keys)
  }
}

extension RotaryScaling {
  /// The object of `rope_scaling`, every number written out.
  var json: JSON {
    switch self {
    case .linear(let factor): return ["rope_type": "linear", "factor": JSON(factor)]
    case .dynamic(let factor, _): return ["rope_type": "dynamic", "factor": JSON(factor)]
    case .yarn(let yarn):
      return [
        "rope_type": "yarn", "factor": JSON(yarn.factor), "original_max_position_embeddings": JSON(yarn.originalPositions),
        "attention_factor": JSON(yarn.magnitude), "beta_fast": JSON(yarn.fast), "beta_slow": JSON(yarn.slow),
        "truncate": JSON(yarn.isTruncated),
      ]
    case .longRoPE(let long):
      return [
        "rope_type": "longrope", "short_factor": .array(long.short.map { JSON($0) }), "long_factor": .array(long.long.map { JSON($0) }),
        "attention_factor": JSON(long.magnitude),
      ]
    case .llama3(let llama3):
      return [
        "rope_type": "llama3", "factor": JSON(llama3.factor), "low_freq_factor": JSON(llama3.lowFrequencyFactor),
        "high_freq_factor": JSON(llama3.highFrequencyFactor), "original_max_position_embeddings": JSON(llama3.originalPositions),
      ]
    }
  }

  /// `original_max_position_embeddings` where it stands beside `rope_scaling`.
  var positionsBeside: Int? {
    if case .longRoPE(let long) = self { long.originalPositions } else { nil }
  }
}
