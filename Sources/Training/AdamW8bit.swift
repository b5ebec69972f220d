import Tensors

/// ``AdamW`` whose moments are kept in 8 bits between its steps: m in the signed map of ``/Tensors/ByteBlocks``, v in the one without
/// signs.
///
/// A step reads them as float32, updates as AdamW does, and keeps what came of them, parameter by parameter; so bitsandbytes' `AdamW8bit`
/// does on a processor. (Its kernels for GPUs decay what is updated, (x + u)(1 − lr λ), where torch and this one decay x alone: u lr λ
/// apart.) Of a parameter of fewer than 4096 numbers the moments stay as they are. A parameter is all of an adapter's experts together,
/// their A below each other, their B side by side; to PEFT and MoE-PEFT each expert's matrix is one.
public struct AdamW8bit<B: Backend>: Optimizer {
  /// The learning rate lr of the next step.
  public var learningRate: Double
  private let weightDecay: Double
  private let loraPlusRatio: Double
  private var moments8: [Moments<ByteBlocks<B>>] = []
  private var moments32: [Moments<Tensor<B>>] = []
  private let backend: B

  /// Numbers that a parameter has at least for its moments to be kept in 8 bits.
  public static var leastCount: Int { 4096 }

  /// An optimizer of the given parameters, before its first step; `loraPlusRatio` is what every B's rate is multiplied with.
  public init(_ parameters: [Parameter<B>], learningRate: Double, weightDecay: Double = 0.01, loraPlusRatio: Double = 1, on backend: B) {
    self.backend = backend
    self.learningRate = learningRate
    self.weightDecay = weightDecay
    self.loraPlusRatio = loraPlusRatio
    func map(_ isSigned: Bool) -> Tensor<B> { backend.upload(DynamicMap.values(isSigned: isSigned).map { B.Scalar($0) }, Shape(256)) }
    let (signed, unsigned) = (map(true), map(false))
    for parameter in parameters {
      if parameter.shape.count < Self.leastCount {
        moments32.append(Moments(parameter: parameter, m: backend.zeros(parameter.shape), v: backend.zeros(parameter.shape)))
      } else {
        func zeros(_ map: Tensor<B>, isSigned: Bool) -> ByteBlocks<B> { ByteBlocks(parameter.shape, map, isSigned: isSigned, on: backend) }
        moments8.append(Moments(parameter: parameter, m: zeros(signed, isSigned: true), v: zeros(unsigned, isSigned: false)))
        // What a step decodes finds its memory in the pool, the first one too.
        withExtendedLifetime((backend.empty(parameter.shape), backend.empty(parameter.shape))) {}
      }
    }
  }

  /// `m.<parameter>.codes`, a byte a number, and `m.<parameter>.scales`, and `v` alike; of a small parameter `m.<parameter>` and
  /// `v.<parameter>`.
  public var moments: [Moment<B>] {
    var moments: [Moment<B>] = []
    for kept in moments8 {
      for (name, kept) in [("m." + kept.parameter.name, kept.m), ("v." + kept.parameter.name, kept.v)] {
        moments.append(Moment(name: name + ".codes", value: kept.codes, bytes: kept.shape))
        moments.append(Moment(name: name + ".scales", value: kept.scales))
      }
    }
    for kept in moments32 {
      moments.append(Moment(name: "m." + kept.parameter.name, value: kept.m))
      moments.append(Moment(name: "v." + kept.parameter.name, value: kept.v))
    }
    return moments
  }

  /// See ``Optimizer/restore(_:)``.
  public mutating func restore(_ moment: (_ name: String, _ shape: Shape, _ isBytes: Bool) throws -> Tensor<B>) throws {
    func restore(_ name: String, _ kept: inout ByteBlocks<B>) throws {
      kept.codes = try moment(name + ".codes", kept.shape, true)
      kept.scales = try moment(name + ".scales", kept.scales.shape, false)
    }
    for i in moments8.indices {
      try restore("m." + moments8[i].parameter.name, &moments8[i].m)
      try restore("v." + moments8[i].parameter.name, &moments8[i].v)
    }
    for i in moments32.indices {
      let parameter = moments32[i].parameter
      moments32[i].m = try moment("m." + parameter.name, parameter.shape, false)
      moments32[i].v = try moment("v." + parameter.name, parameter.shape, false)
    }
  }

  /// One step; see ``Optimizer/step(_:factor:)``.
  public mutating func step(_ number: Int, factor: Tensor<B>? = nil) {
    let (backend, rate, ratio) = (backend, learningRate, loraPlusRatio)
    var settings = AdamWSettings(learningRate: rate, weightDecay: weightDecay, step: number)
    func update(_ x: Parameter<B>, _ m: inout Tensor<B>, _ v: inout Tensor<B>) {
      settings.learningRate = rate * (x.role == .b ? ratio : 1)
      backend.adamW(&x.value, gradient: x.gradient, factor: factor, &m, &v, settings, range: nil)
    }
    for i in moments8.indices {
      var (m, v) = (backend.decoded(moments8[i].m), backend.decoded(moments8[i].v))
      update(moments8[i].parameter, &m, &v)
      backend.encode(m, into: &moments8[i].m, factor: factor)
      backend.encode(v, into: &moments8[i].v, factor: factor)
    }
    func update(_ kept: inout Moments<Tensor<B>>) { update(kept.parameter, &kept.m, &kept.v) }
    for i in moments32.indices { update(&moments32[i]) }
    for arena in ParameterArena.of(moments8.map(\.parameter) + moments32.map(\.parameter)) { backend.fill(0, &arena.gradients) }
  }

  /// What is kept of a parameter.
  private struct Moments<Value> {
    let parameter: Parameter<B>
    var m: Value
    var v: Value
  }
}
