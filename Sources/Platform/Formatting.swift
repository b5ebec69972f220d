/// A number with so many digits after the point.
package func fixed(_ value: Double, _ digits: Int) -> String {
  guard value.isFinite, abs(value) < 1e12 else { return "\(value)" }
  var scale = 1
  for _ in 0..<digits { scale *= 10 }
  let scaled = Int((abs(value) * Double(scale)).rounded())
  let fraction = "\(scaled % scale)"
  let sign = value < 0 && scaled > 0 ? "-" : ""
  return "\(sign)\(scaled / scale)" + (digits == 0 ? "" : "." + String(repeating: "0", count: digits - fraction.count) + fraction)
}

/// A positive number in three digits: 2.00e-4.
package func scientific(_ value: Double) -> String {
  guard value.isFinite, value > 0 else { return "\(value)" }
  var exponent = 0
  var mantissa = value
  while mantissa >= 9.995 { (mantissa, exponent) = (mantissa / 10, exponent + 1) }
  while mantissa < 0.9995 { (mantissa, exponent) = (mantissa * 10, exponent - 1) }
  return fixed(mantissa, 2) + (exponent == 0 ? "" : "e\(exponent)")
}

/// A number with four digits that count, such as `0.02331`, `1234` or `1.500e-9`.
package func significant(_ value: Double) -> String {
  guard value.isFinite else { return "\(value)" }
  guard value != 0 else { return "0" }
  let size = abs(value)
  if size >= 1e-4, size < 1e6 {
    var (digits, limit) = (3, 10.0)
    while size < limit / 10, digits < 7 { (digits, limit) = (digits + 1, limit / 10) }
    while size >= limit, digits > 0 { (digits, limit) = (digits - 1, limit * 10) }
    return fixed(value, digits)
  }
  var (mantissa, exponent) = (size, 0)
  while mantissa >= 10 { (mantissa, exponent) = (mantissa / 10, exponent + 1) }
  while mantissa < 1 { (mantissa, exponent) = (mantissa * 10, exponent - 1) }
  return (value < 0 ? "-" : "") + fixed(mantissa, 3) + "e\(exponent)"
}

/// So many of a thing: `1 tensor`, `2 tensors`.
package func counted(_ count: Int, _ noun: String) -> String { "\(count) \(noun)\(count == 1 ? "" : "s")" }

/// Text with blanks behind it up to a width.
package func pad(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(0, width - text.count)) }
/// Text with blanks before it up to a width.
package func padLeft(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }

/// Columns of text, each as wide as its widest cell.
package struct TextTable {
  private let titles: [String]
  private let right: Set<Int>
  package var rows: [[String]] = []

  /// A table of the given titles; `right` are the columns whose cells stand at the right.
  package init(_ titles: [String], right: Set<Int> = []) {
    self.titles = titles
    self.right = right
  }

  package var text: String {
    let lines = [titles] + rows
    let widths = titles.indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
    return lines.map { cells in
      let line = cells.indices.map { right.contains($0) ? padLeft(cells[$0], widths[$0]) : pad(cells[$0], widths[$0]) }.joined(
        separator: "  ")
      return String(line.reversed().drop { $0 == " " }.reversed())
    }.joined(separator: "\n")
  }
}
