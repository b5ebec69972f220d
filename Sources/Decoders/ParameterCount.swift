extension DecoderConfiguration {
  /// The numbers in all matrices of the model: its blocks' linear layers, embedding and head. As `Double`, because a file may claim
  /// sizes whose product no `Int` holds.
  public var parameterCount: Double {
    let block = family.linears.reduce(0) { $0 + Double(linearSizes($1).outputs) * Double(linearSizes($1).inputs) }
    return Double(layers) * block + Double(vocabulary) * Double(channels) * (head.isTied ? 1 : 2)
  }
}

extension AdapterConfiguration {
  /// The numbers in all matrices of an adapter of these settings: A and B of every branch, the routers, and what it saves whole.
  public func parameterCount(in model: DecoderConfiguration) -> Double {
    // Of one block where all are alike: a file may claim more blocks than one would count.
    if targets.isAlikeInAllBlocks, ranks.rules.isEmpty, !replacesBase { return Double(model.layers) * parameterCount(in: model, layer: 0) }
    var numbers = (0..<model.layers).reduce(0) { $0 + parameterCount(in: model, layer: $1) }
    for name in ["model.embed_tokens.weight", "lm_head.weight"] where ownName(ofBase: name) != nil {
      numbers += Double(model.vocabulary) * Double(model.channels)
    }
    return numbers
  }

  private func parameterCount(in model: DecoderConfiguration, layer: Int) -> Double {
    var numbers = Double(mixture?.experts ?? 0) * Double(model.channels)
    for target in model.family.linears {
      let (outputs, inputs) = model.linearSizes(target)
      if ownName(ofBase: target.path(inLayer: layer) + ".weight") != nil { numbers += Double(outputs) * Double(inputs) }
      guard let lora = lora(on: target, layer: layer) else { continue }
      numbers += Double(lora.rank) * (Double(outputs) + Double(inputs)) * Double(target.isFeedForward ? mixture?.experts ?? 1 : 1)
    }
    return numbers
  }
}
