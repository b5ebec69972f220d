import Checkpoints
import Conformance
import Platform

extension ComparisonReport {
  /// The report for continuous integration: JUnit's XML, a test case a tensor, a failure for each whose own operation is wrong.
  ///
  /// `propagated` and `routing` are no failures: where a tensor is wrong, its own case says so. Where none is wrong itself and errors have
  /// added up beyond the user's rule, what they added up in fails.
  /// - Parameter seconds: what the comparison took.
  public func junit(seconds: Double) -> String {
    let failing: TensorJudgement.Verdict = first == nil ? .propagated : .mismatch
    let cases = tensors.isEmpty ? [emptyCase] : tensors.map { $0.junit(failing) }
    let failures = tensors.isEmpty ? 1 : tensors.count { $0.verdict == failing }
    let time = fixed(seconds, 3)
    return """
      <?xml version="1.0" encoding="UTF-8"?>
      <testsuites tests="\(cases.count)" failures="\(failures)" errors="0" time="\(time)">
      <testsuite name="mixlora compare" tests="\(cases.count)" failures="\(failures)" errors="0" skipped="0" time="\(time)">
      <properties>
      <property name="reference" value="\(xml(reference))"/>
      <property name="candidate" value="\(xml(candidate))"/>
      <property name="precision" value="\(precision.rawValue)"/>
      </properties>
      \(cases.joined(separator: "\n"))
      <system-out>\(xml(text()))</system-out>
      </testsuite>
      </testsuites>

      """
  }

  private var emptyCase: String {
    "<testcase name=\"comparison\" classname=\"compare\" time=\"0\"><failure message=\"nothing was compared\" type=\"mismatch\"/></testcase>"
  }
}

extension TensorJudgement {
  fileprivate func junit(_ failing: Verdict) -> String {
    let head = "<testcase name=\"\(xml(name))\" classname=\"compare.\(xml(phase)).\(xml(kind))\" time=\"0\""
    guard verdict == failing else {
      return verdict == .ok ? head + "/>" : head + "><system-out>\(verdict.rawValue): error \(brief(error))</system-out></testcase>"
    }
    let worst = metrics.worstValues
    let message =
      "\(excess); worst at \(metrics.worstIndex): \(significant(worst.candidate)), expected \(significant(worst.reference))"
    return head + "><failure message=\"\(xml(message))\" type=\"mismatch\">\(xml(equation))</failure></testcase>"
  }
}

/// Text for an attribute or an element of XML or HTML.
///
/// XML has no way to write most control characters, so they appear as `\u{1B}`; a line break or tab stays one.
func xml(_ text: String) -> String {
  var safe = ""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "&": safe += "&amp;"
    case "<": safe += "&lt;"
    case ">": safe += "&gt;"
    case "\"": safe += "&quot;"
    case "'": safe += "&#39;"
    case "\n", "\r", "\t": safe += "&#\(scalar.value);"
    case _ where scalar.properties.generalCategory == .control || scalar.value & 0xFFFE == 0xFFFE:
      safe += "\\u{\(String(scalar.value, radix: 16, uppercase: true))}"
    default: safe.unicodeScalars.append(scalar)
    }
  }
  return safe
}
