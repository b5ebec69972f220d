/// Consecutive elements that fit into one vector: all lanes of it, or at the end of a row the first few.
struct Lanes {
  let start: Int
  let count: Int
}

/// The vectors that make up a range of elements: `for i in Scalar.lanes(range) { y[i] = y[i] + a * x[i] }`.
struct LanesOfRange<Scalar: CPUScalar>: Sequence, IteratorProtocol {
  var start: Int
  let end: Int

  @inline(__always)
  mutating func next() -> Lanes? {
    if start >= end { return nil }
    let lanes = Lanes(start: start, count: Swift.min(Scalar.Vector.scalarCount, end - start))
    start += Scalar.Vector.scalarCount
    return lanes
  }
}

/// Vectors none of which is partial, so that a loop over them asks for no lane.
struct WholeLanes<Scalar: CPUScalar>: Sequence, IteratorProtocol {
  var start = 0
  let end: Int

  @inline(__always)
  mutating func next() -> Lanes? {
    let width = Scalar.Vector.scalarCount
    if start + width > end { return nil }
    defer { start += width }
    return Lanes(start: start, count: width)
  }
}

extension UnsafeMutablePointer where Pointee: CPUScalar {
  /// The elements of `lanes`, the other lanes 0; writing leaves what is beyond `lanes` alone.
  subscript(lanes: Lanes) -> Pointee.Vector {
    @inline(__always) get {
      if _fastPath(lanes.count == Pointee.Vector.scalarCount) {
        return UnsafeRawPointer(self + lanes.start).loadUnaligned(as: Pointee.Vector.self)
      }
      var vector = Pointee.Vector()
      withUnsafeMutableBytes(of: &vector) {
        $0.copyMemory(from: UnsafeRawBufferPointer(start: self + lanes.start, count: lanes.count * MemoryLayout<Pointee>.stride))
      }
      return vector
    }
    @inline(__always) nonmutating set {
      if _fastPath(lanes.count == Pointee.Vector.scalarCount) {
        UnsafeMutableRawPointer(self + lanes.start).storeBytes(of: newValue, as: Pointee.Vector.self)
      } else {
        withUnsafeBytes(of: newValue) {
          guard let base = $0.baseAddress else { return }
          UnsafeMutableRawPointer(self + lanes.start).copyMemory(from: base, byteCount: lanes.count * MemoryLayout<Pointee>.stride)
        }
      }
    }
  }

  /// Eight elements as Double.
  @inline(__always)
  func wide(_ start: Int) -> SIMD8<Double> {
    var vector = SIMD8<Double>()
    for i in 0..<8 { vector[i] = Double(self[start + i]) }
    return vector
  }
}

extension CPUScalar {
  /// The vectors of `range`, the last one perhaps with fewer elements.
  @inline(__always)
  static func lanes(_ range: Range<Int>) -> LanesOfRange<Self> { LanesOfRange(start: range.lowerBound, end: range.upperBound) }

  /// The whole vectors of `count` elements.
  @inline(__always)
  static func wholeLanes(_ count: Int) -> WholeLanes<Self> { WholeLanes(end: count) }

  /// What is left behind the whole vectors of `count` elements.
  @inline(__always)
  static func lastLanes(_ count: Int) -> Lanes? {
    let rest = count % Vector.scalarCount
    return rest == 0 ? nil : Lanes(start: count - rest, count: rest)
  }

  /// Σ_i term(i) for i in `range`, in sixteen Double lanes; `term` gives eight terms or one.
  @inline(__always)
  static func sumInDouble(_ range: Range<Int>, _ eight: (Int) -> SIMD8<Double>, _ one: (Int) -> Double) -> Double {
    var first = SIMD8<Double>()
    var second = SIMD8<Double>()
    var i = range.lowerBound
    while i + 16 <= range.upperBound {
      first += eight(i)
      second += eight(i + 8)
      i += 16
    }
    var total = (first + second).sum()
    while i < range.upperBound {
      total += one(i)
      i += 1
    }
    return total
  }

  /// Σ x.
  @inline(__always)
  static func sum(_ x: UnsafeMutablePointer<Self>, _ range: Range<Int>) -> Double {
    sumInDouble(range, { x.wide($0) }, { Double(x[$0]) })
  }

  /// Σ x y.
  @inline(__always)
  static func dot(_ x: UnsafeMutablePointer<Self>, _ y: UnsafeMutablePointer<Self>, _ range: Range<Int>) -> Double {
    sumInDouble(range, { x.wide($0) * y.wide($0) }, { Double(x[$0]) * Double(y[$0]) })
  }

  /// Σ x y in lanes of this precision: for products.
  @inline(__always)
  static func product(_ x: UnsafeMutablePointer<Self>, _ y: UnsafeMutablePointer<Self>, _ count: Int) -> Self {
    let width = Vector.scalarCount
    var (s0, s1, s2, s3) = (Vector(), Vector(), Vector(), Vector())
    var i = 0
    while i + 4 * width <= count {
      s0 += x[Lanes(start: i, count: width)] * y[Lanes(start: i, count: width)]
      s1 += x[Lanes(start: i + width, count: width)] * y[Lanes(start: i + width, count: width)]
      s2 += x[Lanes(start: i + 2 * width, count: width)] * y[Lanes(start: i + 2 * width, count: width)]
      s3 += x[Lanes(start: i + 3 * width, count: width)] * y[Lanes(start: i + 3 * width, count: width)]
      i += 4 * width
    }
    for lanes in lanes(i..<count) { s0 += x[lanes] * y[lanes] }
    return total((s0 + s1) + (s2 + s3))
  }

  /// y ← Σ_j weights[j] x_j over `count` rows of `width` numbers.
  @inline(__always)
  static func weightedSum(
    _ weights: UnsafeMutablePointer<Self>, _ x: Matrix<Self>, _ count: Int, _ width: Int, _ y: UnsafeMutablePointer<Self>
  ) {
    let lane = Vector.scalarCount
    var column = 0
    while column + 4 * lane <= width {  // as many sums as hide an addition's latency
      var (s0, s1, s2, s3) = (Vector(), Vector(), Vector(), Vector())
      for j in 0..<count {
        let (weight, row) = (weights[j], x.base + j * x.stride + column)
        s0 += weight * row[Lanes(start: 0, count: lane)]
        s1 += weight * row[Lanes(start: lane, count: lane)]
        s2 += weight * row[Lanes(start: 2 * lane, count: lane)]
        s3 += weight * row[Lanes(start: 3 * lane, count: lane)]
      }
      y[Lanes(start: column, count: lane)] = s0
      y[Lanes(start: column + lane, count: lane)] = s1
      y[Lanes(start: column + 2 * lane, count: lane)] = s2
      y[Lanes(start: column + 3 * lane, count: lane)] = s3
      column += 4 * lane
    }
    for lanes in lanes(column..<width) {
      var sum = Vector()
      for j in 0..<count { sum += weights[j] * (x.base + j * x.stride)[lanes] }
      y[lanes] = sum
    }
  }

  /// The largest element; −inf without any. NaN is passed over.
  @inline(__always)
  static func maximum(_ x: UnsafeMutablePointer<Self>, _ count: Int) -> Self {
    let width = Vector.scalarCount
    var (m0, m1) = (Vector(repeating: -.infinity), Vector(repeating: -.infinity))
    var i = 0
    while i + 2 * width <= count {
      m0 = maximum(m0, x[Lanes(start: i, count: width)])
      m1 = maximum(m1, x[Lanes(start: i + width, count: width)])
      i += 2 * width
    }
    m0 = maximum(m0, m1)
    var result = -Self.infinity
    for lane in 0..<width where m0[lane] > result { result = m0[lane] }
    while i < count {
      if x[i] > result { result = x[i] }
      i += 1
    }
    return result
  }

  /// x ← exp(x − shift); returns Σ. Lanes are summed over 64 vectors at a time, the rest in Double.
  @inline(__always)
  static func exponentials(_ x: UnsafeMutablePointer<Self>, _ count: Int, minus shift: Self) -> Double {
    var total = 0.0
    var start = 0
    while start < count {
      let end = min(start + 64 * Vector.scalarCount, count)
      var sum = Vector()
      for i in lanes(start..<end) {
        let e = exp(x[i] - shift)
        x[i] = e
        if i.count == Vector.scalarCount { sum += e } else { for j in i.start..<end { total += Double(x[j]) } }
      }
      for lane in 0..<Vector.scalarCount { total += Double(sum[lane]) }
      start = end
    }
    return total
  }

  /// x ← cap · tanh(x / cap).
  @inline(__always)
  static func softcap(_ x: UnsafeMutablePointer<Self>, _ range: Range<Int>, _ cap: Self) {
    for i in lanes(range) { x[i] = cap * tanh(x[i] / cap) }
  }

  /// x ← α x.
  @inline(__always)
  static func scale(_ x: UnsafeMutablePointer<Self>, _ range: Range<Int>, by alpha: Self) {
    for i in lanes(range) { x[i] = alpha * x[i] }
  }
}
