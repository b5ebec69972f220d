import Tensors

extension CaseList {
  /// upload, download, copy, zeros, freezing, decoding, sharing and counting.
  mutating func addMemory() {
    for (n, c) in [(0, 3), (3, 0), (1, 1), (5, 9), (2, 65)] {
      add("upload", "and download (\(n),\(c))", isEmpty: n * c == 0) { trial in
        let m = trial.source.matrix(n, c)
        let tensor = trial.device(m)
        try trial.expectExactly("x", tensor, m)
        if n > 1 { try trial.expectExactly("rows of x", tensor.rows(1..<n), m.rows(1..<n)) }
        if c > 1 { try trial.expectExactly("columns of x", tensor.columns(1..<c), m.columns(1..<c)) }
      }
      add("zeros", "(\(n),\(c))", isEmpty: n * c == 0) { trial in
        try trial.expectExactly("x", trial.backend.zeros(Shape(n, c)), Matrix(n, c))
        trial.expect(trial.backend.empty(Shape(n, c)).shape == Shape(n, c), "empty has another shape")
      }
      add("copy", "(\(n),\(c))", isEmpty: n * c == 0) { trial in
        let m = trial.source.matrix(n, c)
        let x = trial.device(m)
        let y = trial.backend.copy(x)
        try trial.expectExactly("y", y, m)
        trial.expect(y.isContiguous, "a copy of \(x.shape) has row stride \(y.rowStride)")
        trial.expect(x.storage !== y.storage, "a copy shares its storage")
      }
    }
    let whole = 0..<7
    for (rows, columns) in [(nil, nil), (2..<5, nil), (nil, 3..<8), (1..<6, 8..<9), (3..<3, nil)] as [(Range<Int>?, Range<Int>?)] {
      let (r, c) = (rows ?? whole, columns ?? 0..<9)
      add("copyInto", "rows \(r) columns \(c) of (7,9)") { trial in
        let (y0, x) = (trial.source.matrix(7, 9), trial.source.matrix(r.count, c.count))
        var y = trial.writable(y0)
        trial.backend.copy(trial.device(x), into: &y.tensor, rows: rows, columns: columns)
        let expected = Matrix(7, 9) { i, j in
          r.contains(i) && c.contains(j) ? x[i - r.lowerBound, j - c.lowerBound] : y0[i, j]
        }
        try trial.expect("y", y, expected, 0, of: Matrix(7, 9))
      }
    }
    add("copyInto", "a vector of 17") { trial in
      let x = trial.source.vector(17)
      var y = trial.writable([Double](repeating: .nan, count: 17))
      trial.backend.copy(trial.device(x), into: &y.tensor, rows: nil, columns: nil)
      try trial.expect("y", y, x, 0, of: [Double](repeating: 0, count: 17))
    }
    add("upload", "and download a vector of 37") { trial in
      let v = trial.source.vector(37)
      try trial.expectExactly("x", trial.device(v), v)
    }
    add("zeros", "vector of 9") { trial in
      try trial.expectExactly("x", trial.backend.zeros(Shape(9)), [Double](repeating: 0, count: 9))
    }
    add("zeros", "after a buffer was used", [.contiguous]) { trial in
      for _ in 0..<3 {
        _ = trial.device(trial.source.matrix(5, 9))  // goes back to the pool at once
        try trial.expectExactly("x", trial.backend.zeros(Shape(5, 9)), Matrix(5, 9))
      }
    }
    add("upload", "integers", [.contiguous]) { trial in
      let integers = [0, 1, -1, Int(Int32.max), Int(Int32.min), 7]
      try trial.expect("indices", trial.device(integers), integers)
    }
    add("upload", "no integers", [.contiguous], isEmpty: true) { trial in try trial.expect("indices", trial.device([Int]()), []) }
    addFormats()
    add("sharing", "a write to shared storage makes one copy, another none", [.contiguous]) { trial in
      let m = trial.source.matrix(5, 9)
      var x = trial.backend.upload(m.values.map { B.Scalar($0) }, Shape(5, 9))
      var start = trial.backend.counters
      trial.backend.scale(2, &x)
      let alone = (trial.backend.counters - start).sharedCopies
      trial.expect(alone == 0, "\(alone) copies counted for a tensor that nobody shares")
      let other = x
      start = trial.backend.counters
      trial.backend.scale(2, &x)
      trial.backend.scale(2, &x)
      let shared = (trial.backend.counters - start).sharedCopies
      trial.expect(shared == 1, "\(shared) copies counted for a shared tensor that is written twice")
      try trial.expectExactly("the other", other, Naive.scale(2, m))
      try trial.expectExactly("x", x, Naive.scale(8, m))
    }
    add("counters", "bytes between host and device", [.contiguous]) { trial in
      let start = trial.backend.counters
      let x = trial.device(trial.source.matrix(3, 7))
      _ = try trial.backend.download(x.rows(1..<3))
      let moved = trial.backend.counters - start
      let width = MemoryLayout<B.Scalar>.size
      trial.expect(moved.bytesToDevice == 21 * width, "\(moved.bytesToDevice) bytes to the device, expected \(21 * width)")
      trial.expect(moved.bytesToHost == 14 * width, "\(moved.bytesToHost) bytes to the host, expected \(14 * width)")
    }
  }

  /// A number of each format *is* what it decodes to, wherever its bytes lie.
  private mutating func addFormats() {
    for format in WeightFormat.allCases {
      add("upload", "bytes of \(format.rawValue)", [.contiguous], expectsNaN: true) { trial in
        let bytes = encodedNumbers(format, &trial.source)
        let expected = Naive.decode(bytes, format).map { Double(B.Scalar($0)) }
        for shift in 0..<3 {  // aligned and not
          let moved = [UInt8](repeating: 0, count: shift) + bytes
          let x = moved.withUnsafeBytes {
            trial.backend.upload(UnsafeRawBufferPointer(rebasing: $0[shift...]), format, Shape(expected.count))
          }
          try trial.expectExactly("x", x, expected)
        }
      }
      let width = format.blockCount == 1 ? 9 : 3 * format.blockCount
      add("freeze", "bytes of \(format.rawValue)", [.contiguous]) { trial in
        let bytes = encoded(7 * width, format, &trial.source)
        let decoded = Matrix(7, width, Naive.decode(bytes, format))
        let moved = [0] + bytes
        let frozen = moved.withUnsafeBytes { trial.backend.freeze(UnsafeRawBufferPointer(rebasing: $0[1...]), format, Shape(7, width)) }
        trial.expect(frozen.shape == Shape(7, width), "the frozen matrix is \(frozen.shape), expected (7,\(width))")
        let rows = trial.backend.embedding(trial.device([6, 0, 1, 2, 3, 4, 5, 0]), .frozen(frozen, transposed: false))
        try trial.expectExactly("its rows", rows, Naive.embedding([6, 0, 1, 2, 3, 4, 5, 0], decoded))
      }
      add("vector", "frozen from bytes of \(format.rawValue)", [.contiguous]) { trial in
        let count = format.blockCount == 1 ? 17 : 2 * format.blockCount
        let bytes = encoded(count, format, &trial.source)
        let frozen = bytes.withUnsafeBytes { trial.backend.freeze($0, format, Shape(count)) }
        trial.expect(frozen.shape == Shape(count), "the frozen vector is \(frozen.shape), expected (\(count))")
        try trial.expectExactly("x", trial.backend.vector(frozen), Naive.decode(bytes, format))
      }
      addFrozenProducts(format)
    }
    add("vector", "frozen from a tensor") { trial in
      let v = trial.source.vector(9)
      try trial.expectExactly("x", trial.backend.vector(trial.backend.freeze(trial.device(v))), v)
    }
    add("freeze", "a tensor that is written later", [.contiguous]) { trial in
      let m = trial.source.matrix(5, 9)
      var x = trial.device(m)
      let frozen = trial.backend.freeze(x)
      trial.backend.scale(3, &x)
      let rows = trial.backend.embedding(trial.device(Array(0..<5)), .frozen(frozen, transposed: false))
      try trial.expectExactly("the frozen rows", rows, m)
    }
  }
}

extension CaseList {
  /// Products with a frozen matrix of each format on the right, transposed or not: one row and few (which may read the
  /// encoding directly), one more than few and many, and once on the left.
  private mutating func addFrozenProducts(_ format: WeightFormat) {
    let widths = format.blockCount == 1 ? [9, 32, 75] : [format.blockCount, 5 * format.blockCount]
    for (index, (m, rows)) in [(0, 5), (1, 1), (1, 37), (3, 17), (8, 9), (8, 131), (9, 8), (33, 35)].enumerated() {
      for width in widths {
        for transposed in [true, false] {
          let (alpha, beta) = [(1.0, 0.0), (1, 1), (-0.5, 2)][(index + width / 8) % 3]
          let form = "m \(m), frozen \(format.rawValue) (\(rows),\(width))\(transposed ? "ᵀ" : "") α \(alpha) β \(beta)"
          add("gemm", form, isEmpty: m == 0) { trial in
            let bytes = encoded(rows * width, format, &trial.source)
            let w = Matrix(rows, width, Naive.decode(bytes, format))
            let b = transposed ? w.transposed : w
            let frozen = bytes.withUnsafeBytes { trial.backend.freeze($0, format, Shape(rows, width)) }
            let (a, c0) = (trial.source.matrix(m, b.rows), trial.source.matrix(m, b.columns))
            var c = trial.writable(c0)
            trial.backend.gemm(
              alpha, trial.operand(a, transposed: m == 3), .frozen(frozen, transposed: transposed), beta, into: &c.tensor, rows: nil)
            let magnitude = Naive.gemm(abs(alpha), a.magnitude, b.magnitude, abs(beta), c0.magnitude)
            try trial.expect("c", c, Naive.gemm(alpha, a, b, beta, c0), b.rows + Roundings.factor, of: magnitude)
          }
        }
      }
    }
    let width = widths[1]
    add("gemm", "frozen \(format.rawValue) on the left, into rows 1..<6 of 9") { trial in
      let bytes = encoded(5 * width, format, &trial.source)
      let w = Matrix(5, width, Naive.decode(bytes, format))
      let frozen = bytes.withUnsafeBytes { trial.backend.freeze($0, format, Shape(5, width)) }
      let b = trial.source.matrix(width, 7)
      var c = trial.writable(Matrix(9, 7))
      trial.backend.gemm(1, .frozen(frozen, transposed: false), trial.operand(b, transposed: false), 0, into: &c.tensor, rows: 1..<6)
      let (product, magnitude) = (Naive.product(w, b), Naive.product(w.magnitude, b.magnitude))
      let inside = { (i: Int) in (1..<6).contains(i) }
      try trial.expect(
        "c", c, Matrix(9, 7) { i, j in inside(i) ? product[i - 1, j] : 0 }, width + Roundings.factor,
        of: Matrix(9, 7) { i, j in inside(i) ? magnitude[i - 1, j] : 0 })
    }
    add("gemm", "frozen \(format.rawValue), β = 0 does not read NaN in c") { trial in
      let bytes = encoded(5 * width, format, &trial.source)
      let w = Matrix(5, width, Naive.decode(bytes, format))
      let frozen = bytes.withUnsafeBytes { trial.backend.freeze($0, format, Shape(5, width)) }
      for (m, transposed) in [(2, true), (2, false), (11, true), (11, false)] {
        let b = transposed ? w.transposed : w
        let a = trial.source.matrix(m, b.rows)
        var c = trial.writable(Matrix(m, b.columns, repeating: .nan))
        trial.backend.gemm(1, trial.operand(a, transposed: false), .frozen(frozen, transposed: transposed), 0, into: &c.tensor, rows: nil)
        try trial.expect("c", c, Naive.product(a, b), b.rows + Roundings.factor, of: Naive.product(a.magnitude, b.magnitude))
      }
    }
  }
}

/// Bytes of finite numbers around 1: each encoded, or random blocks under scales from 1/64 to 1.
private func encoded(_ count: Int, _ format: WeightFormat, _ source: inout RandomSource) -> [UInt8] {
  if format.blockCount == 1 { return source.vector(count).flatMap { encode($0, format) } }
  return (0..<count / format.blockCount).flatMap { _ in
    let scales = format == .q4_1 ? 2 : 1
    let head = (0..<scales).flatMap { _ in
      encode((source.number() + 1.1) / (format == .q8_0 ? 128 : 16) * (source.bits() % 2 == 0 ? 1 : -1), .float16)
    }
    return head + (2 * scales..<format.blockBytes).map { _ in UInt8(source.bits() % 256) }
  }
}

/// Bytes that hold every class of number: zeros, subnormal, normal, infinite, NaN.
private func encodedNumbers(_ format: WeightFormat, _ source: inout RandomSource) -> [UInt8] {
  switch format {
  case .float16, .bfloat16:
    return stride(from: 0, through: 0xffff, by: 37).flatMap { [UInt8($0 & 255), UInt8($0 >> 8)] } + [0, 0x7c, 0x80, 0x7f]  // ∞ of each
  case .q8_0, .q4_0, .q4_1:
    // Scales (and minima) of every class, with every byte somewhere behind them.
    let blocks = 64
    return (0..<blocks).flatMap { block -> [UInt8] in
      let scales = (0..<(format == .q4_1 ? 2 : 1)).flatMap { i in
        let bits =
          [0, 0x8000, 1, 0x03ff, 0x0400, 0x3c00, 0x7bff, 0x7c00, 0xfc00, 0x7e01][(block + 3 * i) % 10]
          ^ (block > 40 ? Int(source.bits() % 0x7000) : 0)
        return [UInt8(bits & 255), UInt8(bits >> 8 & 255)]
      }
      return scales + (scales.count..<format.blockBytes).map { UInt8(truncatingIfNeeded: block * 37 + $0 * 11) }
    }
  case .float32, .float64:
    let special: [Double] = [0, -0.0, 1, -1, .infinity, -.infinity, .nan, 0x1p-126, 0x1p-149, 3.5e38, 1.0 / 3]
    return (special + source.vector(26)).flatMap { encode($0, format) }
  }
}

/// The little-endian bytes of a number; for 16-bit formats cut off, not rounded.
private func encode(_ x: Double, _ format: WeightFormat) -> [UInt8] {
  func bytes(_ bits: some FixedWidthInteger & UnsignedInteger) -> [UInt8] {
    (0..<bits.bitWidth / 8).map { UInt8(truncatingIfNeeded: bits >> (8 * $0)) }
  }
  switch format {
  case .q8_0, .q4_0, .q4_1: trap("\(format.rawValue) has no single numbers")
  case .float64: return bytes(x.bitPattern)
  case .float32: return bytes(Float(x).bitPattern)
  case .bfloat16: return bytes(UInt16(truncatingIfNeeded: Float(x).bitPattern >> 16))
  case .float16:
    if abs(x) < 0x1p-14 { return bytes(UInt16(abs(x) * 0x1p24) | (x < 0 ? 0x8000 : 0)) }
    let fraction = UInt16((abs(x).significand - 1) * 1024)
    return bytes(UInt16(Int(x.exponent) + 15) << 10 | fraction | (x < 0 ? 0x8000 : 0))
  }
}
