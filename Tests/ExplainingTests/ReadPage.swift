import Checkpoints
import Explaining
import Foundation
import Testing

/// A page as a browser reads it: the two elements that hold the run.
struct ReadPage {
  let run: JSON
  let numbers: String

  init(_ html: [UInt8]) throws {
    let text = String(decoding: html, as: UTF8.self)
    func element(_ id: String) throws -> String {
      let begin = try #require(text.range(of: "id=\"\(id)\">"))
      let end = try #require(text.range(of: "</script>", range: begin.upperBound..<text.endIndex))
      return String(text[begin.upperBound..<end.lowerBound])
    }
    run = try JSON(parsing: Array(try element("run").utf8), file: "page")
    numbers = try element("numbers")
  }

  /// A tensor of the run, or a weight.
  struct Tensor {
    let name: String
    let shape: [Int]
    /// Nil where the page has not its numbers.
    let bits: [UInt32]?
    /// Kind and inputs; null for a weight.
    let formula: JSON
  }

  func tensors(_ list: String) throws -> [Tensor] {
    try #require(run[list]?.arrayValue).map { json in
      let fields = try #require(json.arrayValue)
      let shape = try #require(fields[1].arrayValue).compactMap(\.intValue)
      let place = try #require(fields.last)
      return Tensor(
        name: try #require(fields[0].stringValue), shape: shape,
        bits: place == .null ? nil : try bits(try #require(place.intValue), shape.reduce(1, *)),
        formula: list == "points" ? fields[6] : .null)
    }
  }

  private func bits(_ place: Int, _ count: Int) throws -> [UInt32] {
    let characters = (4 * count + 2) / 3 * 4
    let begin = numbers.utf8.index(numbers.utf8.startIndex, offsetBy: place)
    let data = try #require(Data(base64Encoded: String(numbers[begin..<numbers.utf8.index(begin, offsetBy: characters)])))
    #expect(data.count == 4 * count)
    return stride(from: 0, to: data.count, by: 4).map { n in (0..<4).reduce(0) { $0 | UInt32(data[n + $1]) << (8 * UInt32($1)) } }
  }
}
