import Tensors

extension CaseList {
  /// encode, decoded, adamW, sgd, clipFactor.
  mutating func addOptimizers() {
    addByteBlocks()
    let sizes = [(0, 1, 0.01), (1, 1, 0), (21, 2, 0.1), (45, 100, 0.01), (130, 1000, 0), (16_705, 3, 0.1)]
    for (n, step, lambda) in sizes {
      for range in ranges(n) {
        add("adamW", "\(n) elements\(range.map { " in \($0)" } ?? "") step \(step) λ \(lambda)", isEmpty: n == 0) { trial in
          let (x0, g) = (trial.source.vector(n), trial.source.vector(n))
          let (m0, v0) = (trial.source.vector(n, 0.1), trial.source.vector(n, 0.01).map(abs))
          let settings = AdamWSettings(learningRate: 0.01, weightDecay: lambda, step: step)
          try checkAdamW(&trial, x0, g, m0, v0, settings, range: range)
        }
      }
    }
    let zeros = [Double](repeating: 0, count: 27)
    add("adamW", "no gradient ever: decay alone") { trial in  // an expert without a token
      let settings = AdamWSettings(learningRate: 0.01, weightDecay: 0.1, step: 7)
      try checkAdamW(&trial, trial.source.vector(27), zeros, zeros, zeros, settings)
    }
    add("adamW", "first step moves by the learning rate") { trial in
      let (x0, g) = (trial.source.vector(27), trial.source.vector(27))
      try checkAdamW(&trial, x0, g, zeros, zeros, AdamWSettings(learningRate: 0.5, weightDecay: 0, step: 1))
    }
    add("adamW", "a factor of 1/4 on the gradient") { trial in
      let (x0, g, m0) = (trial.source.vector(27), trial.source.vector(27), trial.source.vector(27))
      let settings = AdamWSettings(learningRate: 0.02, weightDecay: 0.1, step: 2)
      try checkAdamW(&trial, x0, g, m0, trial.source.vector(27).map(abs), settings, factor: 0.25)
    }
    add("adamW", "other settings than torch's defaults") { trial in
      var settings = AdamWSettings(learningRate: 0.02, weightDecay: 0.3, step: 3)
      (settings.beta1, settings.beta2, settings.epsilon) = (0.5, 0.75, 0.125)
      let (x0, g, m0) = (trial.source.vector(27), trial.source.vector(27), trial.source.vector(27))
      try checkAdamW(&trial, x0, g, m0, trial.source.vector(27).map(abs), settings)
    }
    addDescent()
    addFactors()
  }

  private mutating func addByteBlocks() {
    for isSigned in [true, false] {
      let kind = isSigned ? "with signs" : "without"
      for n in [1, 255, 256, 257, 1000, 8200] {
        add("encode", "\(n) numbers \(kind)") { trial in
          let x = numbers(n, isSigned, &trial.source)
          var kept = blocks(n, isSigned, trial)
          trial.backend.encode(trial.device(x), into: &kept, factor: trial.device([0.5]))
          try trial.expectExactly("scales", kept.scales, Naive.blockScales(x))
          try expectNearest(&trial, trial.backend.decoded(kept), x, isSigned)
        }
        // In the map without signs each block's largest number has the code of 1.
        if isSigned { continue }
        add("decoded", "\(n) numbers, once more what they were") { trial in
          let x = numbers(n, isSigned, &trial.source)
          var kept = blocks(n, isSigned, trial)
          trial.backend.encode(trial.device(x), into: &kept, factor: nil)
          let once = trial.backend.decoded(kept)
          try expectNearest(&trial, once, x, isSigned)
          trial.backend.encode(once, into: &kept, factor: nil)
          try trial.expectExactly("twice", trial.backend.decoded(kept), trial.backend.download(once).map { Double($0) })
        }
      }
      for factor in [Double.nan, .infinity] {
        add("encode", "a factor \(factor) changes nothing, \(kind)") { trial in
          var kept = blocks(300, isSigned, trial)
          trial.backend.encode(trial.device(numbers(300, isSigned, &trial.source)), into: &kept, factor: nil)
          let before = try trial.backend.download(trial.backend.decoded(kept)).map { Double($0) }
          trial.backend.encode(trial.device(numbers(300, isSigned, &trial.source)), into: &kept, factor: trial.device([factor]))
          try trial.expectExactly("x", trial.backend.decoded(kept), before)
        }
      }
      for bad in [Double.nan, .infinity, -.infinity] {
        // The first and the last of a block, one amid others, and all of these in the last block, which is no whole one.
        for place in [0, 255, 256, 399, 512, 607, 699] {
          add("encode", "\(bad) at \(place) of 700 spoils its block alone, \(kind)", expectsNaN: true) { trial in
            var x = numbers(700, isSigned, &trial.source)
            x[place] = bad
            var kept = blocks(700, isSigned, trial)
            trial.backend.encode(trial.device(x), into: &kept, factor: nil)
            let spoiled = x.indices.map { $0 / 256 == place / 256 ? .nan : x[$0] }
            try trial.expectNaN("scales", kept.scales, where: Naive.blockScales(x))
            try trial.expectNaN("x", trial.backend.decoded(kept), where: spoiled)
          }
        }
      }
      add("encode", "zeros \(kind), before and behind") { trial in
        let zeros = [Double](repeating: 0, count: 300)
        var kept = blocks(300, isSigned, trial)
        try trial.expectExactly("fresh", trial.backend.decoded(kept), zeros)
        trial.backend.encode(trial.device(zeros), into: &kept, factor: nil)
        try trial.expectExactly("encoded", trial.backend.decoded(kept), zeros)
      }
    }
  }

  private mutating func addDescent() {
    for (n, decay, momentum, factor) in [
      (0, 0.0, 0.0, nil), (1, 0, 0, nil), (21, 0.1, 0.9, 0.5), (16_705, 0.1, 0.9, nil),
    ] as [(Int, Double, Double, Double?)] {
      for range in ranges(n) {
        add("sgd", "\(n) elements\(range.map { " in \($0)" } ?? "") λ \(decay) μ \(momentum)", isEmpty: n == 0) { trial in
          let (x0, g, b0) = (trial.source.vector(n), trial.source.vector(n), trial.source.vector(n))
          var (x, b) = (trial.writable(x0), trial.writable(b0))
          let settings = SGDSettings(learningRate: 0.01, weightDecay: decay, momentum: momentum)
          trial.backend.sgd(
            &x.tensor, gradient: trial.device(g), factor: factor.map { trial.device([$0]) }, momentum: &b.tensor, settings, range: range)
          var (ex, eb) = (x0, b0)
          var (sizeX, sizeB) = ([Double](repeating: 0, count: n), [Double](repeating: 0, count: n))
          for i in range ?? 0..<n {
            (ex[i], eb[i]) = Naive.sgd(x0[i], gradient: (factor ?? 1) * g[i], momentum: b0[i], settings)
            sizeB[i] = abs(momentum * b0[i]) + abs(g[i]) + abs(decay * x0[i])
            sizeX[i] = abs(x0[i]) + 0.01 * sizeB[i]
          }
          try trial.expect("b", b, eb, 6, of: sizeB)
          try trial.expect("x", x, ex, 9, of: sizeX)
        }
      }
    }
  }

  private mutating func addFactors() {
    for factor in [Double.nan, .infinity] {
      add("adamW", "a factor \(factor) changes nothing") { trial in
        let (x0, g) = (trial.source.vector(27), trial.source.vector(27))
        var (x, m, v) = (trial.device(x0), trial.device(g), trial.device(g.map(abs)))
        trial.backend.adamW(
          &x, gradient: trial.device(g), factor: trial.device([factor]), &m, &v,
          AdamWSettings(learningRate: 0.1, weightDecay: 0.1, step: 1), range: nil)
        try trial.expectExactly("x", x, x0)
        try trial.expectExactly("m", m, g)
        try trial.expectExactly("v", v, g.map(abs))
      }
      add("sgd", "a factor \(factor) changes nothing") { trial in
        let (x0, g) = (trial.source.vector(27), trial.source.vector(27))
        var (x, b) = (trial.device(x0), trial.device(g))
        let settings = SGDSettings(learningRate: 0.1, weightDecay: 0.1, momentum: 0.5)
        trial.backend.sgd(&x, gradient: trial.device(g), factor: trial.device([factor]), momentum: &b, settings, range: nil)
        try trial.expectExactly("x", x, x0)
        try trial.expectExactly("b", b, g)
      }
    }
    for (squared, loss, maximum, expected) in [
      (4.0, 1.0, 1.0, 1 / (2 + 1e-6)), (4, 1, 3, 1), (4, 1, 0, 1), (0.25, 1, 1, 1), (0, 0, 1, 1), (.infinity, 1, 1, .nan),
      (.nan, 1, 0, .nan), (4, .nan, 1, .nan), (4, .infinity, 0, .nan),
    ] {
      add("clipFactor", "of squared norm \(squared), loss \(loss), maximum \(maximum)", expectsNaN: expected.isNaN) { trial in
        let found = trial.backend.clipFactor(trial.device([squared]), loss: trial.device([loss]), maximum: maximum)
        try trial.expect("factor", found.factor, [expected], within: [trial.tolerance.bound(6, of: 1)])
        if squared.isFinite { try trial.expect("norm", found.norm, [squared.squareRoot()], within: [trial.tolerance.bound(2, of: 2)]) }
      }
    }
  }
}

/// Numbers over fourteen powers of two, the fifth of which is the largest magnitude, and negative where there are signs.
private func numbers(_ n: Int, _ isSigned: Bool, _ source: inout RandomSource) -> [Double] {
  source.vector(n).enumerated().map { i, x in
    let value = i == 4 ? -9 : x * Double(sign: .plus, exponent: -(i % 14), significand: 1)
    return isSigned ? value : abs(value)
  }
}

private func blocks<B: Backend>(_ n: Int, _ isSigned: Bool, _ trial: Trial<B>) -> ByteBlocks<B> {
  ByteBlocks(Shape(n), trial.device(DynamicMap.values(isSigned: isSigned).map { Double($0) }), isSigned: isSigned, on: trial.backend)
}

/// Each number is off by no more than the nearest value of the map is.
private func expectNearest<B: Backend>(_ trial: inout Trial<B>, _ found: Tensor<B>, _ x: [Double], _ isSigned: Bool) throws {
  let map = DynamicMap.values(isSigned: isSigned).map { Double($0) }
  let scales = Naive.blockScales(x)
  let bounds = x.indices.map { i in
    let scale = scales[i / 256]
    let nearest = map.map { abs(scale * $0 - x[i]) }.min() ?? 0
    return nearest + trial.tolerance.bound(6, of: scale)
  }
  try trial.expect("x", found, x, within: bounds)
}

/// None, all, some in the middle and no element of n.
private func ranges(_ n: Int) -> [Range<Int>?] { n < 4 ? [nil, 0..<n] : [nil, 0..<n, n / 3..<n - n / 4, n..<n] }

/// The moments' errors are relative to their terms; the first one's enters the update through the quotient. Outside the range nothing
/// changes.
private func checkAdamW<B: Backend>(
  _ trial: inout Trial<B>, _ x0: [Double], _ g: [Double], _ m0: [Double], _ v0: [Double], _ settings: AdamWSettings,
  factor: Double? = nil, range: Range<Int>? = nil
) throws {
  var (x, m, v) = (trial.writable(x0), trial.writable(m0), trial.writable(v0))
  trial.backend.adamW(
    &x.tensor, gradient: trial.device(g), factor: factor.map { trial.device([$0]) }, &m.tensor, &v.tensor, settings, range: range)
  let none = [Double](repeating: 0, count: x0.count)
  var (ex, em, ev) = (x0, m0, v0)
  var (sizeX, sizeM, sizeV) = (none, none, none)
  let (correction1, correction2) = (1 - Naive.power(settings.beta1, settings.step), 1 - Naive.power(settings.beta2, settings.step))
  for i in range ?? 0..<x0.count {
    let g = (factor ?? 1) * g[i]
    (ex[i], em[i], ev[i]) = Naive.adamW(x0[i], gradient: g, m0[i], v0[i], settings)
    sizeM[i] = abs(m0[i]) + (abs(m0[i]) + abs(g)) * (1 - settings.beta1)
    sizeV[i] = ev[i]
    let denominator = (ev[i] / correction2).squareRoot() + settings.epsilon
    sizeX[i] = abs(x0[i]) + settings.learningRate / correction1 * sizeM[i] / denominator
  }
  try trial.expect("x", x, ex, Roundings.moment + Roundings.update, of: sizeX)
  try trial.expect("m", m, em, Roundings.moment, of: sizeM)
  try trial.expect("v", v, ev, Roundings.moment, of: sizeV)
}
