/// The largest difference of two tensors, element by element, over the largest expected magnitude; infinite where shapes or counts
/// disagree, where nothing is compared, or where a value is not finite.
package func largestError<S: BinaryFloatingPoint>(
  of found: [S], _ foundShape: [Int], from expected: [Double], _ shape: [Int]
) -> Double {
  guard foundShape == shape, found.count == expected.count, shape.reduce(1, *) == expected.count, !expected.isEmpty else {
    return .infinity
  }
  let scale = expected.reduce(0) { max($0, abs($1)) }
  var worst = 0.0
  for i in expected.indices {
    let error = abs(Double(found[i]) - expected[i])
    guard error.isFinite, expected[i].isFinite else { return .infinity }
    worst = max(worst, error)
  }
  return worst == 0 ? 0 : worst / scale
}
