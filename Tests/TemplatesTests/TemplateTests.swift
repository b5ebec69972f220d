import Foundation
import JSON
import Templates
import Testing

/// Templates against what jinja2's sandbox, set up as transformers does, makes of them (`Fixtures/templates/make_cases.py`).
@Suite struct TemplateTests {
  private static let fixtures = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appending(path: "Fixtures/templates")

  @Test func everyFeatureIsWhatJinjaMakesOfIt() throws {
    let file = Self.fixtures.appending(path: "cases.json")
    let json = try JSON(parsing: Array(Data(contentsOf: file)), file: file.path)
    let values = try #require(json["values"]?.objectValue).members.map { (name: $0.key, value: $0.value) }
    let cases = try #require(json["cases"]?.arrayValue)
    #expect(cases.count > 100)
    for entry in cases {
      let source = try #require(entry["template"]?.stringValue)
      let rendering = Result { try Template(source).render(values) }
      guard let text = entry["text"]?.stringValue else {
        #expect(throws: TemplateError.self, "\(source)") { try rendering.get() }
        continue
      }
      do {
        let result = try rendering.get()
        #expect(result.text.utf8.elementsEqual(text.utf8), "\(source): \(result.text), expected \(text)")
        let places = entry["generations"]?.arrayValue?.map { pair in (pair.arrayValue ?? []).compactMap(\.intValue) }
        #expect(result.generations.map { [$0.lowerBound, $0.upperBound] } == places, "\(source)")
      } catch { Issue.record("\(source): \(error), expected \(text)") }
    }
  }

  @Test func anErrorSaysItsLineAndWhetherTheTemplateRaisedIt() throws {
    let error = try #require(throws: TemplateError.self) {
      try Template("a\n\n{{ 'x' }}\n{% if true %}{{ raise_exception('Only ' ~ 1) }}{% endif %}").render([])
    }
    #expect(error.line == 4 && error.problem == "Only 1" && error.isRaised)
    let other = try #require(throws: TemplateError.self) { try Template("\n{{ messages.a.b }}").render([("messages", [])]) }
    #expect(other.line == 2 && !other.isRaised)
    let syntax = try #require(throws: TemplateError.self) { try Template("\n\n{% for x %}") }
    #expect(syntax.line == 3)
  }

  @Test func aDateIsTheOneOfTheClock() throws {
    let rendering = try Template("{{ strftime_now('%d %b %Y') }}").render([], now: { $0 == "%d %b %Y" ? "01 Feb 2026" : nil })
    #expect(rendering.text == "01 Feb 2026")
    #expect(throws: TemplateError.self) { try Template("{{ strftime_now('%999999999d') }}").render([]) }
  }

  @Test func integersAreOf64Bits() throws {
    for text in ["{{ 9223372036854775807 + 1 }}", "{{ 10 ** 30 }}", "{{ 99999999999999999999 }}", "{{ x }}"] {
      #expect(throws: TemplateError.self) { try Template(text).render([("x", .number(JSON.Number(UInt64.max)))]) }
    }
  }
}
