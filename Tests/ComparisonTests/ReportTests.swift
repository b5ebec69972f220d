import Checkpoints
import Comparison
import Conformance
import Foundation
import Testing

#if canImport(FoundationXML)
  import FoundationXML
#endif

/// What a comparison says to people and programs.
@Suite struct ReportTests {
  private let report = SampleReport.make(layers: 2, experts: 2)

  @Test func theFirstLineNamesVerdictAndOperation() {
    #expect(
      report.text().split(separator: "\n")[0]
        == "mismatch: model.layers.1.self_attn.q_proj.rotated (forward), error 0.029 is 22000 × what rounding explains")
    let right = SampleReport.make(layers: 2, experts: 2, wrong: false)
    #expect(right.text().hasPrefix("match: \(right.tensors.count) tensors, at most 0."))
    let nothing = ComparisonReport(tensors: [], reference: "a", candidate: "b", precision: .float32)
    #expect(nothing.text().hasPrefix("mismatch: nothing was compared\n"))
    #expect(nothing.junit(seconds: 0).contains("failures=\"1\""))
    #expect(nothing.html.contains("nothing was compared"))
    #expect(nothing.jsonLines.count == 1 && nothing.jsonLines[0].hasPrefix(#"{"verdict":"mismatch","compared":0,"first":null"#))
  }

  @Test func theTerminalHasEightyColumnsAndColorsOnRequest() {
    for report in [report, SampleReport.make(layers: 30, experts: 8), hostile] {
      for line in report.text().split(separator: "\n").dropFirst() { #expect(line.count <= 80, "\(line)") }
      #expect(!report.text().contains("\u{1B}"))
      #expect(report.text(color: true).hasPrefix("\u{1B}[1;31mmismatch: "))
    }
    let text = report.text()
    for part in ["rotary embedding pairs", "(a, b) → ", "worst     at [1, 6, 32]: 0.4312, expected 0.03910", "only in the reference: 2"] {
      #expect(text.contains(part), "\(part) is not in\n\(text)")
    }
  }

  @Test func whatCannotBeUndoneLeavesNoRemainder() throws {
    var low = report
    low.causes = [Cause(name: "low-precision", text: "a part of it may run in bfloat16", remaining: nil)]
    #expect(report.text().contains("with that undone") && report.html.contains("with that undone"))
    #expect(low.text().contains("a part of it may run in bfloat16") && !low.text().contains("undone") && !low.html.contains("undone"))
    #expect(low.jsonLines.last?.contains(#""text":"a part of it may run in bfloat16","remaining":null"#) == true)
  }

  @Test func oneIsSingular() throws {
    var one = ComparisonReport(tensors: [], reference: "a", candidate: "b", precision: .float32)
    one.tensors = [report.tensors[0]]
    one.tensors[0].metrics.count = 1
    #expect(one.text().hasPrefix("match: 1 tensor, at most"))
    one.tensors[0].verdict = .mismatch
    #expect(one.text().contains("1 value\n"))
  }

  /// A report whose every text is hostile, with figures that are no numbers.
  private var hostile: ComparisonReport {
    var report = SampleReport.make(layers: 2, experts: 2)
    for i in report.tensors.indices where i % 3 == 0 { report.tensors[i].name = SampleReport.hostile + "\(i)" }
    let i = report.tensors.indices.first { report.tensors[$0].verdict == .mismatch } ?? 0
    report.tensors[i].name = SampleReport.hostile
    report.tensors[i].equation = SampleReport.hostile
    report.tensors[i].kind = SampleReport.hostile
    (report.tensors[i].error, report.tensors[i].localError) = (.infinity, .nan)
    report.tensors[i].metrics.nonfinite = 3
    report.tensors[i].metrics.maxAbsolute = .infinity
    report.tensors[i].metrics.worstValues = (.nan, 0)
    report.tensors[i].metrics.map[0][0] = .infinity
    report.causes = [Cause(name: "x", text: SampleReport.hostile, remaining: .nan)]
    (report.missing, report.unknown, report.notes) = ([SampleReport.hostile], [SampleReport.hostile], [SampleReport.hostile])
    (report.reference, report.candidate) = (SampleReport.hostile, SampleReport.hostile)
    report.routing?.layers[0].path = SampleReport.hostile
    return report
  }

  @Test func jsonLinesHoldTheContract() throws {
    let tensorKeys = [
      "tensor", "phase", "shape", "error", "max_abs", "worst_index", "budget", "ratio", "local_error", "local_budget", "nonfinite",
      "verdict",
    ]
    let lastKeys = [
      "verdict", "compared", "first", "operation", "phase", "equation", "causes", "missing", "unknown", "routing",
    ]
    for report in [report, hostile] {
      let lines = report.jsonLines
      #expect(lines.count == report.tensors.count + 1)
      for (line, tensor) in zip(lines, report.tensors) {
        let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
        #expect(tensorKeys.allSatisfy { object[$0] != nil } && object["tensor"] as? String == tensor.name)
        // Foundation reads numbers to about 15 digits
        let error = object["error"] as? Double
        #expect(tensor.error.isFinite ? abs((error ?? .nan) / tensor.error - 1) < 1e-12 : error == nil)
        #expect(line.hasPrefix("{\"tensor\":") && !line.contains("\n"))
      }
      let last = try #require(try JSONSerialization.jsonObject(with: Data(lines[lines.count - 1].utf8)) as? [String: Any])
      #expect(lastKeys.allSatisfy { last[$0] != nil } && last["verdict"] as? String == "mismatch")
      #expect(last["causes"] as? [String] == report.causes.map(\.text))
      #expect((last["routing"] as? [String: Any])?["flips"] as? Int == 2)
    }
    let right = SampleReport.make(layers: 1, experts: 1, wrong: false).jsonLines.last ?? ""
    #expect(right.hasPrefix(#"{"verdict":"match","compared":"#) && right.contains(#""first":null,"operation":null"#))
  }

  @Test func junitIsXMLWithACaseATensor() throws {
    for report in [report, hostile, SampleReport.make(layers: 1, experts: 1, wrong: false)] {
      let reader = Elements()
      let parser = XMLParser(data: Data(report.junit(seconds: 1.25).utf8))
      parser.delegate = reader
      #expect(parser.parse(), "\(String(describing: parser.parserError))")
      #expect(reader.counts["testcase"] == report.tensors.count)
      #expect(reader.counts["failure", default: 0] == report.tensors.count { $0.verdict == .mismatch })
      #expect(reader.counts["testsuite"] == 1)
    }
    #expect(report.junit(seconds: 1.25).contains(#"errors="0" time="1.250""#))
  }

  private final class Elements: NSObject, XMLParserDelegate {
    var counts: [String: Int] = [:]
    func parser(
      _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?, attributes: [String: String]
    ) { counts[name, default: 0] += 1 }
  }

  @Test func thePageStandsAloneAndIsSmall() {
    let large = SampleReport.make(layers: 30, experts: 12)
    #expect(large.tensors.count >= 2000)
    for report in [report, large, hostile] {
      let page = report.html
      #expect(page.utf8.count < 2_000_000, "\(page.utf8.count) bytes of \(report.tensors.count) tensors")
      #expect(!page.contains("://") && !page.contains("<script>alert") && !page.contains("\u{1B}") && !page.contains("\u{202E}"))
      #expect(page.components(separatedBy: "<script>").count == 2)
      #expect(page.components(separatedBy: "<tr class=").count - 1 == report.tensors.count)
    }
  }
}
