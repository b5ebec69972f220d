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
      }
      add("empty", "(\(n),\(c))", [.contiguous]) { trial in
        let (x, y) = (trial.backend.empty(Shape(n, c)), trial.backend.empty(Shape(n, c)))
        trial.expect(x.shape == Shape(n, c) && x.isContiguous, "empty is \(x.shape) with row stride \(x.rowStride)")
        trial.expect(x.storage !== y.storage, "two empty tensors share their storage")
      }
      add("fill", "(\(n),\(c))", isEmpty: n * c == 0) { trial in
        for value in [0, -0.3] {  // whatever it held
          var x = trial.writable(Matrix(n, c) { i, j in (i + j) % 2 == 0 ? .nan : 1 })
          trial.backend.fill(value, &x.tensor)
          let expected = Matrix(n, c, repeating: Double(B.Scalar(value)))
          try trial.expect("x", x, expected, 0, of: Matrix(n, c))
        }
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
    for (count, n, c) in [(0, 5, 3), (1, 1, 1), (3, 7, 9), (5, 9, 65), (130, 200, 33)] {
      add("copyRows", "\(count) of (\(n),\(c))") { trial in
        let (x, y0) = (trial.source.matrix(count, c), trial.source.matrix(n, c))
        let rows = trial.source.distinct(count, below: n)
        var y = trial.writable(y0)
        trial.backend.copy(trial.device(x), into: &y.tensor, rows: trial.device(rows))
        try trial.expect("y", y, Naive.copy(x, rows: rows, to: y0), 0, of: Matrix(n, c))
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
    add("uploadIntegers", "and download") { trial in
      let integers = [0, 1, -1, Int(Int32.max), Int(Int32.min), 7]
      let indices = trial.device(integers)
      try trial.expect("indices", indices, integers)
      try trial.expect("some of the indices", indices[1..<5], Array(integers[1..<5]))
      try trial.expect("some of those", indices[1..<5][2..<3], [integers[3]])
    }
    add("downloadIntegers", "part by part") { trial in
      let indices = trial.device([3, -1, 4, 1, 5])
      let parts = try [0..<2, 2..<2, 2..<5].map { try trial.backend.download(indices[$0]) }
      trial.expect(parts == [[3, -1], [], [4, 1, 5]], "the parts are \(parts)")
    }
    add("uploadIntegers", "none", isEmpty: true) { trial in try trial.expect("indices", trial.device([Int]()), []) }
    add("download", "several tensors") { trial in
      let (m, v) = (trial.source.matrix(5, 9), trial.source.vector(17))
      let start = trial.backend.counters
      let found = try trial.backend.download([trial.device(m), trial.device(Matrix(0, 3)), trial.device(v), trial.device(m.transposed)])
      let waits = (trial.backend.counters - start).waits
      trial.expect(waits == 1, "\(waits) waits for four tensors")
      let expected = [m.values, [], v, m.transposed.values]
      trial.expect(found.map { $0.map { Double($0) } } == expected, "the values are \(found), expected \(expected)")
      trial.expect(try trial.backend.download([Tensor<B>]()).isEmpty, "nothing is something")
    }
    addCounters()
    addFormats()
  }

  /// A number of each format *is* what it decodes to, wherever its bytes lie.
  private mutating func addFormats() {
    for format in WeightFormat.allCases {
      add("uploadBytes", "of \(format.rawValue)", [.contiguous], expectsNaN: true) { trial in
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
    }
    add("vector", "frozen from a tensor") { trial in
      let v = trial.source.vector(9)
      try trial.expectExactly("x", trial.backend.vector(trial.backend.freeze(trial.device(v))), v)
    }
    add("freezeTensor", "that is written later", [.contiguous]) { trial in
      let m = trial.source.matrix(5, 9)
      var x = trial.device(m)
      let frozen = trial.backend.freeze(x)
      trial.backend.scale(3, &x)
      let rows = trial.backend.embedding(trial.device(Array(0..<5)), .frozen(frozen, transposed: false))
      try trial.expectExactly("the frozen rows", rows, m)
    }
  }
}

/// Bytes of finite numbers around 1: each encoded, or random blocks under fitting scales.
func encoded(_ count: Int, _ format: WeightFormat, _ source: inout RandomSource) -> [UInt8] {
  if format.blockCount == 1 { return source.vector(count).flatMap { encode($0, format) } }
  let (places, largest) = scales(format)
  return (0..<count / format.blockCount).flatMap { _ in
    var block = (0..<format.blockBytes).map { _ in UInt8(source.bits() % 256) }
    for place in places {
      let scale = (source.number() + 1.1) / largest * (source.bits() % 2 == 0 ? 1 : -1)
      block.replaceSubrange(place..<place + 2, with: encode(scale, .float16))
    }
    return block
  }
}

/// Where the halves of a block stand, and how large the numbers may be that they are multiplied with.
private func scales(_ format: WeightFormat) -> (places: [Int], largest: Double) {
  switch format {
  case .float32, .float64, .float16, .bfloat16: ([], 1)
  case .q8_0: ([0], 128)
  case .q4_0: ([0], 16)
  case .q4_1: ([0, 2], 16)
  case .q5_0: ([0], 32)
  case .q5_1: ([0, 2], 32)
  case .q2_K: ([80, 82], 64)
  case .q3_K: ([108], 128)
  case .q4_K: ([0, 2], 1024)
  case .q5_K: ([0, 2], 2048)
  case .q6_K: ([208], 4096)
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
  default:
    // Scales (and minima) of every class, with every byte somewhere beside them.
    let places = scales(format).places
    return (0..<64).flatMap { block -> [UInt8] in
      var bytes = (0..<format.blockBytes).map { UInt8(truncatingIfNeeded: block * 37 + $0 * 11) }
      for (i, place) in places.enumerated() {
        let bits =
          [0, 0x8000, 1, 0x03ff, 0x0400, 0x3c00, 0x7bff, 0x7c00, 0xfc00, 0x7e01][(block + 3 * i) % 10]
          ^ (block > 40 ? Int(source.bits() % 0x7000) : 0)
        bytes.replaceSubrange(place..<place + 2, with: [UInt8(bits & 255), UInt8(bits >> 8 & 255)])
      }
      return bytes
    }
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
  default: trap("\(format.rawValue) has no single numbers")
  }
}
