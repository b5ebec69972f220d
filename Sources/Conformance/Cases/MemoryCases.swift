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
      add("freeze", "bytes of \(format.rawValue)", [.contiguous]) { trial in
        let m = trial.source.matrix(7, 9)
        let bytes = m.values.flatMap { encode($0, format) }
        let decoded = Matrix(7, 9, Naive.decode(bytes, format))
        let moved = [0] + bytes
        let frozen = moved.withUnsafeBytes { trial.backend.freeze(UnsafeRawBufferPointer(rebasing: $0[1...]), format, Shape(7, 9)) }
        trial.expect(frozen.shape == Shape(7, 9), "the frozen matrix is \(frozen.shape), expected (7,9)")
        let rows = trial.backend.embedding(trial.device(Array(0..<7)), .frozen(frozen, transposed: false))
        try trial.expectExactly("its rows", rows, decoded)
        let a = trial.source.matrix(3, 9)
        var c = trial.writable(Matrix(3, 7))
        trial.backend.gemm(1, trial.operand(a, transposed: false), .frozen(frozen, transposed: true), 0, into: &c.tensor, rows: nil)
        let magnitude = Naive.product(a.magnitude, decoded.magnitude.transposed)
        try trial.expect("a frozenᵀ", c, Naive.product(a, decoded.transposed), 9 + Roundings.factor, of: magnitude)
      }
      add("vector", "frozen from bytes of \(format.rawValue)", [.contiguous]) { trial in
        let bytes = trial.source.vector(17).flatMap { encode($0, format) }
        let frozen = bytes.withUnsafeBytes { trial.backend.freeze($0, format, Shape(17)) }
        trial.expect(frozen.shape == Shape(17), "the frozen vector is \(frozen.shape), expected (17)")
        try trial.expectExactly("x", trial.backend.vector(frozen), Naive.decode(bytes, format))
      }
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

/// Bytes that hold every class of number: zeros, subnormal, normal, infinite, NaN.
private func encodedNumbers(_ format: WeightFormat, _ source: inout RandomSource) -> [UInt8] {
  switch format {
  case .float16, .bfloat16:
    return stride(from: 0, through: 0xffff, by: 37).flatMap { [UInt8($0 & 255), UInt8($0 >> 8)] } + [0, 0x7c, 0x80, 0x7f]  // ∞ of each
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
  case .float64: return bytes(x.bitPattern)
  case .float32: return bytes(Float(x).bitPattern)
  case .bfloat16: return bytes(UInt16(truncatingIfNeeded: Float(x).bitPattern >> 16))
  case .float16:
    if abs(x) < 0x1p-14 { return bytes(UInt16(abs(x) * 0x1p24) | (x < 0 ? 0x8000 : 0)) }
    let fraction = UInt16((abs(x).significand - 1) * 1024)
    return bytes(UInt16(Int(x.exponent) + 15) << 10 | fraction | (x < 0 ? 0x8000 : 0))
  }
}
