import Platform

extension TensorMetrics {
  /// Compares a candidate's values with the reference's, of the given sizes.
  ///
  /// - Parameters:
  ///   - roundoff: unit roundoff of the candidate's element type, for differences in units in the last place.
  ///   - isLogits: whether rows are logits, whose largest element and distribution matter.
  /// - Precondition: both have as many values as the sizes say.
  init(_ found: [Double], _ expected: [Double], shape: [Int], roundoff: Double, isLogits: Bool = false) {
    count = expected.count
    let width = max(1, shape.last ?? 1)
    var (worst, first, sum, dot, foundNorm, squares) = (0, -1, 0.0, 0.0, 0.0, 0.0)
    var differences = [Double](repeating: 0, count: count)
    found.withUnsafeBufferPointer { found in
      expected.withUnsafeBufferPointer { expected in
        differences.withUnsafeMutableBufferPointer { differences in
          for i in expected.indices {
            let (x, y) = (found[i], expected[i])
            if y.isFinite { squares += y * y }
            guard x.isFinite, y.isFinite else {
              // The same infinity, or NaN on both sides, is no difference.
              if x == y || (x.isNaN && y.isNaN) {
                nonfiniteOnBothSides += 1
                continue
              }
              nonfinite += 1
              if first < 0 { first = i }
              continue
            }
            let d = abs(x - y)
            differences[i] = d
            sum += d
            if d > startDifference, i % width == 0 { startDifference = d }
            dot += x * y
            foundNorm += x * x
            if d > maxAbsolute { (maxAbsolute, worst) = (d, i) }
            let size = abs(y)
            if d > maxRelative * size, size > 0 { maxRelative = d / size }
            let ulp = Self.ulp(of: y, roundoff)
            if d > maxULP * ulp { maxULP = d / ulp }
          }
        }
      }
    }
    norm = squares.squareRoot()
    guard count > 0 else { return }
    meanAbsolute = sum / Double(count)
    cosine = foundNorm > 0 && squares > 0 ? dot / (foundNorm.squareRoot() * norm) : foundNorm == squares ? 1 : 0
    if first < 0, maxAbsolute > 0 { first = differences.firstIndex { $0 > maxAbsolute / 10 } ?? worst }
    if nonfinite > 0, first >= 0, !found[first].isFinite || !expected[first].isFinite { worst = first }
    worstIndex = Self.index(worst, shape)
    worstValues = (found[worst], expected[worst])
    firstIndex = first >= 0 ? Self.index(first, shape) : []
    // Percentiles are those of a regular sample of at most 65 536 numbers.
    let sample = Array(stride(from: 0, to: count, by: max(1, count / 65_536)))
    p99Absolute = Self.percentile99(sample.map { differences[$0] })
    p99ULP = Self.percentile99(sample.map { differences[$0] / Self.ulp(of: expected[$0], roundoff) })
    map = Self.map(differences, width: width)
    if isLogits, width > 1 { logits = Self.logits(found, expected, width: width) }
  }

  /// A unit in the last place at x: 2u times the largest power of two that is at most |x|, of the smallest normal number at least.
  static func ulp(of x: Double, _ roundoff: Double) -> Double {
    let smallest = roundoff == 0x1p-11 ? 0x1p-14 : roundoff == 0x1p-53 ? 0x1p-1022 : 0x1p-126
    return 2 * roundoff * max(smallest, Double(bitPattern: x.bitPattern & 0x7ff0_0000_0000_0000))
  }

  private static func index(_ i: Int, _ shape: [Int]) -> [Int] {
    var (index, rest): ([Int], Int) = ([], i)
    for size in shape.reversed() {
      index.append(size > 0 ? rest % size : 0)
      rest /= max(1, size)
    }
    return index.reversed()
  }

  private static func percentile99(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, sorted.count * 99 / 100)]
  }

  private static func map(_ differences: [Double], width: Int) -> [[Double]] {
    let rows = differences.count / width
    let (height, columns) = (min(32, rows), min(32, width))
    guard height > 0 else { return [] }
    var map = [[Double]](repeating: [Double](repeating: 0, count: columns), count: height)
    differences.withUnsafeBufferPointer { differences in
      for r in 0..<rows {
        let y = r * height / rows
        for cell in 0..<columns {
          var largest = map[y][cell]
          for c in (cell * width + columns - 1) / columns..<((cell + 1) * width + columns - 1) / columns {
            largest = max(largest, differences[r * width + c])
          }
          map[y][cell] = largest
        }
      }
    }
    return map
  }

  private static func logits(_ found: [Double], _ expected: [Double], width: Int) -> (agreement: Double, divergence: Double) {
    var (agreed, divergence, rows) = (0, 0.0, 0)
    for begin in stride(from: 0, to: expected.count, by: width) {
      let (x, y) = (found[begin..<begin + width], expected[begin..<begin + width])
      guard y.contains(where: { $0 != 0 }) else { continue }  // padding
      rows += 1
      let (a, b) = (x.max() ?? 0, y.max() ?? 0)
      if let i = x.firstIndex(of: a), y[i] == b { agreed += 1 }
      let (zx, zy) = (x.reduce(0) { $0 + exp($1 - a) }, y.reduce(0) { $0 + exp($1 - b) })
      for i in x.indices { divergence += exp(y[i] - b) / zy * ((y[i] - b - log(zy)) - (x[i] - a - log(zx))) }
    }
    return rows == 0 ? (1, 0) : (Double(agreed) / Double(rows), divergence / Double(rows))
  }
}

private func exp(_ x: Double) -> Double { Double.exp(x) }
private func log(_ x: Double) -> Double { Double.log(x) }
