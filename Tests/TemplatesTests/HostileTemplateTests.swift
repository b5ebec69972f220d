import Platform
import Templates
import Testing

/// Templates that would never end, fill the memory, exhaust the stack or leave the sandbox end in an error.
@Suite(.serialized) struct HostileTemplateTests {
  private func repeated(_ text: String, _ count: Int) -> String { String(repeating: text, count: count) }

  private func growing(_ start: String, _ step: String, _ count: Int = 100_000, then: String = "") -> String {
    "{% set ns = namespace(x=\(start)) %}{% for i in range(\(count)) %}{% set ns.x = \(step) %}{% endfor %}\(then)"
  }

  private var templates: [String] {
    [
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% for i in range(100000) %}{% for j in range(100000) %}{{ 'xxxxxxxxxxxxxxxx' }}{% endfor %}{% endfor %}",
      "{{ 'a' * 10**9 }}", "{{ 'a' * 10**18 }}", "{{ [1] * 10**9 }}", "{{ range(10**9) }}", "{{ 10 ** 10 ** 10 }}",
      growing("'a'", "ns.x + ns.x", 100), growing("[1]", "ns.x + ns.x", 100), growing("[1]", "[ns.x]"),
      growing("[1]", "[ns.x, ns.x]", 100, then: "{{ ns.x }}"), growing("(1,)", "(ns.x, ns.x)", 100, then: "{{ {ns.x: 1} }}"),
      growing("[1]", "[ns.x, ns.x]", 100, then: "{{ ns.x | tojson }}"), growing("[1]", "[ns.x, ns.x]", 100, then: "{{ ns.x == ns.x }}"),
      growing("[1]", "ns.x | map('string')"), growing("1", "joiner(ns.x)"), growing("1", "cycler(ns.x)"), growing("1", "[ns.x].index"),
      "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
      "{% set ns = namespace(x=1) %}{% for i in range(100000) %}{% for j in [ns.x] %}{% set ns.x = loop %}{% endfor %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{{ \(repeated("(", 100_000))1\(repeated(")", 100_000)) }}", "{{ \(repeated("not ", 100_000))1 }}",
      "{{ \(repeated("-", 100_000))1 }}",
      "{{ \(repeated("1+", 100_000))1 }}", "{{ a\(repeated(".b", 100_000)) }}", "{{ \(repeated("[", 100_000)) }}",
      repeated("{% if 1 %}", 20_000) + repeated("{% endif %}", 20_000), "{{ 1\(repeated("|string", 50_000)) }}",
      "{{ ('a' * 100000).replace('a', 'b' * 100000) }}", "{{ ('a' * 100000).join(['b'] * 100000) }}",
      "{% set a = 'a' * 400000 %}{% for i in range(1000) %}{{ (a + 'c').find('a' * 200000 + 'b') }}{% endfor %}",
      "{{ '%1000000000d' % 1 }}", "{{ '{:>1000000000}'.format(1) }}", "{{ 'a'.center(10**12) }}", "{{ 'a' | indent(10**12) }}",
      "{{ [[1]] | tojson(indent=10**12) }}", "{{ [1] | batch(10**12, 0) | list }}", "{{ [1] | slice(10**12) | list }}",
      "{{ ''.__class__.__mro__ }}", "{{ ''['__class__']['__mro__'] }}", "{{ cycler.__init__.__globals__ }}",
      "{{ '' | attr('__class__') | attr('__mro__') }}", "{{ [''] | map(attribute='__class__.__mro__') | list }}",
      "{{ '{0.__class__.__mro__}'.format('') }}", "{{ messages.append(1) }}",
    ]
  }

  @Test func everyOneEndsInAnError() {
    for template in templates {
      let start = POSIX.seconds
      #expect(throws: TemplateError.self, "\(template.prefix(100))") {
        try Template(template).render([("messages", [["role": "user", "content": "Hi"]])])
      }
      // Within a second where the machine is idle; a machine that tests run on beside others has ten.
      #expect(POSIX.seconds - start < 10, "\(template.prefix(100))")
    }
    #expect(POSIX.peakResidentBytes < 1 << 30)
  }
}
