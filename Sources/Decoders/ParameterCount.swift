extension DecoderConfiguration {
  /// The numbers in all matrices of the model: its blocks' linear layers, embedding and head. As `Double`, because a file may claim
  /// sizes whose product no `Int` holds.
  public var parameterCount: Double {
    let block = family.linears.reduce(0) { $0 + Double(linearSizes($1).outputs) * Double(linearSizes($1).inputs) }
    return Double(layers) * block + Double(vocabulary) * Double(channels) * (head.isTied ? 1 : 2)
  }
}

extension AdapterConfiguration {
  /// The numbers in all matrices of an adapter of these settings: A and B of every branch, and the routers.
  public func parameterCount(in model: DecoderConfiguration) -> Double {
    var numbers = Double(mixture?.experts ?? 0) * Double(model.channels)
    for target in model.family.linears where targets.contains(target) {
      let (outputs, inputs) = model.linearSizes(target)
      let isExpert = target.isFeedForward && mixture != nil
      let rank = isExpert ? mixture?.lora.rank ?? 0 : lora.rank
      numbers += Double(rank) * (Double(outputs) + Double(inputs)) * Double(isExpert ? mixture?.experts ?? 1 : 1)
    }
    return Double(model.layers) * numbers
  }
}
