import Checkpoints
import Decoders
import Layers
import Samples

extension TrainingRecipe {
  /// What was asked of an adapter that the folder to start from has otherwise, whose settings hold: a sentence a setting. Nothing where a
  /// new adapter is made.
  ///
  /// - Parameter isAsked: whether somebody asked for a setting, by its name in ``json``.
  /// - Throws: `CheckpointError` for a folder or a model that cannot be read.
  public func differences(fromOwnAdapter isAsked: (String) -> Bool) throws -> [SettingsText] {
    guard let adapter, let own = try startingConfiguration() else { return [] }
    let layers = try ModelFolder.configuration(model).layers
    let settings = ["method", "rank", "alpha", "rslora", "dropout", "init", "experts", "top-k", "targets", "router-coefficient", "act_fn"]
    return settings.filter(isAsked).compactMap { setting in
      let asked = json[setting] ?? .null
      guard let found = own.values(of: setting, layers: layers) else {
        return setting == "top-k" && own.mixture != nil
          ? "\(setting: setting) is \(value: asked, of: setting), but the adapter \(adapter) routes by top-p, which holds."
          : "\(setting: setting) does nothing: the adapter \(adapter) has no experts."
      }
      if found.allSatisfy({ Self.isSame($0, asked, setting) }) { return nil }
      let words =
        found.count > 1 && found[0] != found[1]
        ? "\(value: found[0], of: setting), and \(value: found[1], of: setting) in its experts"
        : "\(value: found[0], of: setting)" as SettingsText
      return "\(setting: setting) is \(value: asked, of: setting), but the adapter \(adapter) has \(words), which holds."
    }
  }

  /// What the folder to start from says; nil where a new adapter is made, or none.
  ///
  /// - Throws: `CheckpointError` for a folder that cannot be read.
  public func startingConfiguration() throws -> AdapterConfiguration? {
    method == .full ? nil : try adapter.map { try AdapterFolder.configuration(of: $0) }
  }

  private static func isSame(_ one: JSON, _ other: JSON, _ setting: String) -> Bool {
    if setting == "targets" { return names(one) == names(other) }
    if let one = one.doubleValue, let other = other.doubleValue { return one == other }  // 16 and 16.0
    return one == other
  }

  private static func names(_ list: JSON) -> Set<Substring> { Set((list.stringValue ?? "").split(separator: ",")) }
}

extension AdapterConfiguration {
  /// What an adapter has under the name of a recipe's setting, for its layers and for its experts; nil where it has no such thing.
  fileprivate func values(of setting: String, layers: Int) -> [JSON]? {
    let branches = [lora] + (mixture.map { [$0.lora] } ?? [])
    return switch setting {
    case "method": [JSON((mixture == nil ? TrainingRecipe.Method.lora : .mixlora).rawValue)]
    case "rank": branches.map { JSON($0.rank) }
    case "alpha": branches.map { JSON($0.alpha) }
    case "rslora": branches.map { JSON($0.isRankStabilized) }
    case "dropout": branches.map { JSON($0.dropout) }
    case "init": [JSON(lora.initialization.rawValue)]
    case "targets": [JSON(targets(in: layers).map(\.rawValue).joined(separator: ","))]
    case "experts": mixture.map { [JSON($0.experts)] }
    case "router-coefficient": mixture.map { [JSON($0.hasBalanceLoss ? $0.balanceCoefficient : 0)] }
    case "act_fn": mixture.map { [$0.activation.map { JSON($0.rawValue) } ?? .null] }
    case "top-k": if case .topK(let k) = mixture?.policy { [JSON(k)] } else { nil }
    default: nil
    }
  }
}
