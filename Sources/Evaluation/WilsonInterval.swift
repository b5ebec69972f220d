/// An interval for a share that was counted.
public struct WilsonInterval: Equatable, Sendable {
  /// The lower end.
  public let low: Double
  /// The upper end.
  public let high: Double

  /// The interval that holds the true share with 95 % confidence, after `right` of `count` (Wilson 1927); all of [0,1] after none.
  ///
  ///     (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n),  z = 1.96
  public init(right: Int, of count: Int) {
    guard count > 0 else {
      (low, high) = (0, 1)
      return
    }
    let (n, z) = (Double(count), 1.959963984540054)
    let p = Double(right) / n
    let middle = p + z * z / (2 * n)
    let spread = z * (p * (1 - p) / n + z * z / (4 * n * n)).squareRoot()
    (low, high) = ((middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n))
  }
}
