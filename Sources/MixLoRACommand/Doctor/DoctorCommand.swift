import ArgumentParser
import Checkpoints
import Platform

/// Looks at this machine and runs a short conformance suite on it.
struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Look at this machine and check that its numbers are right.",
    discussion: """
      A line a check: what was found, and what to do where something is missing or slow. The conformance runs compare the \
      operations of the float64 and the float32 backend with their naive definitions; what does not fit into the few seconds that \
      they get is counted, and nothing compared is a failure. It takes less than 20 s. Exit code 0 without a failure, else 1.

      With --backend cuda every case runs on the GPU, which takes a minute, and without one the command ends with exit code 5 and a list \
      of what was looked for. MIXLORA_CUDA_PATH names folders with the driver's, NVRTC's and cuBLAS's libraries, separated by colons \
      (a toolkit, or Python's site-packages/nvidia); MIXLORA_CUDA_PRODUCTS=own leaves cuBLAS out.

      --json: an object a line with check, status (ok, fail or not run) and detail.
      """)

  @Flag(help: "Print one JSON object a line.")
  var json = false

  @OptionGroup var device: DeviceOptions
  @OptionGroup var common: CommonOptions

  func run() throws {
    if device.backend == .cuda { _ = try GPU.open() }
    var failures = 0
    for check in Doctor(threads: common.threadCount, device: device.backend).checks {
      let result = check.run()
      failures += result.status == .fail ? 1 : 0
      print(json ? result.json(check.name).serialized() : result.text(check.name))
    }
    if !json { print(failures == 0 ? "\nno check failed" : "\n\(failures) failed") }
    if failures > 0 { throw ExitCode(1) }
  }
}

/// One thing that is looked at.
struct DoctorCheck {
  let name: String
  let run: () -> Result

  init(_ name: String, _ run: @escaping () throws -> Result) {
    self.name = name
    self.run = { do { return try run() } catch { return .fail("\(error)") } }
  }

  struct Result {
    enum Status: String {
      case ok
      case fail
      case notRun = "not run"
    }

    let status: Status
    let detail: String

    static func ok(_ detail: String) -> Result { Result(status: .ok, detail: detail) }
    static func notRun(_ detail: String) -> Result { Result(status: .notRun, detail: detail) }
    static func fail(_ detail: String) -> Result { Result(status: .fail, detail: detail) }

    func json(_ name: String) -> JSON { ["check": JSON(name), "status": JSON(status.rawValue), "detail": JSON(detail)] }

    func text(_ name: String) -> String {
      let mark =
        switch status {
        case .ok: "✓"
        case .fail: "✗"
        case .notRun: "–"
        }
      return "\(mark) \(pad(name, 26))\(detail.replacing("\n", with: "\n" + pad("", 28)))"
    }
  }
}
