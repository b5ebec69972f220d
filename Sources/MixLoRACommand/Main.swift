import ArgumentParser
import CUDABackend
import Checkpoints
import Collectives
import Generation
import Platform
import Samples
import Tensors

/// Parses, runs and maps every error to the exit code that scripts rely on.
@main
enum Main {
  static func main() {
    POSIX.ignore(.fileTooLarge)  // a file that would grow too large is then an error of the write, told like a full disk
    do {
      var command = try MixLoRACommand.parseAsRoot()
      try command.run()
      end(printed: 0)
    } catch {
      end(with: error)
    }
  }

  /// Ends with `code`, or with 5 if what was printed did not arrive: on a full disk behind a redirection, say.
  private static func end(printed code: Int32) -> Never {
    do { try flushOutput() } catch { fail("error: \(error)", 5) }
    Ranks.current.leave()
    POSIX.end(code)
  }

  /// Ends with an error, and all other ranks with it. What every rank meets the first one says; it has a second for that.
  private static func fail(_ message: String, _ code: Int32) -> Never {
    if !Ranks.isFirst { POSIX.sleep(1) }
    writeError((Ranks.isFirst ? "" : "rank \(Ranks.number): ") + message + "\n")
    if Ranks.current.size > 1 { POSIX.sleep(0.3) }  // Hydra ends a job without reading what its ranks have just said
    Ranks.current.abort(code)
    POSIX.end(code)
  }

  private static func end(with error: any Error) -> Never {
    switch error {
    case let error as CheckpointError:
      fail("error: \(error)", error.isSystemFailure ? 5 : 3)
    case is CUDAError: fail("error: --backend cuda: \(error)", 5)
    case is CollectiveError, is OutputError: fail("error: \(error)", 5)
    case is UsageError, is InputError, is NonFiniteValue:
      fail("error: \(error)", error is UsageError ? 2 : error is InputError ? 3 : 4)
    case let error as SettingsError: fail("error: \(error.text.option)", 2)
    case let error as PromptError: fail("error: \(error.prompt == nil ? "" : "--")\(error)", 2)
    case is Interrupted: end(printed: 130)
    case let code as ExitCode: end(printed: code.rawValue)
    default:
      // Everything else is ArgumentParser's: help and version (0) or a usage error (its 64 is our 2).
      let message = MixLoRACommand.fullMessage(for: error)
      let code = MixLoRACommand.exitCode(for: error)
      if code.isSuccess {
        print(message)
        end(printed: 0)
      }
      fail(message, code == .validationFailure ? 2 : code.rawValue)
    }
  }
}

/// Options that do not fit what the files say; exit code 2.
struct UsageError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

/// What an input or an option asks for and cannot be; exit code 3.
struct InputError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

/// What was printed and did not arrive, on a full disk behind a redirection, say; exit code 5.
struct OutputError: Error, CustomStringConvertible {
  let reason: Errno

  var description: String { "standard output: found \"\(reason)\"; expected a place that takes what is printed" }
}

/// Writes out what `print` still holds.
func flushOutput() throws(OutputError) {
  do { try POSIX.flushOutput() } catch { throw OutputError(reason: error) }
}

/// Writes to standard error, where progress and errors go.
func writeError(_ text: String) {
  _ = try? FileDescriptor.standardError.writeAll(text.utf8)
}

/// Says what a user may want to know: always, for a note is no progress; once, where there are several ranks.
func writeNote(_ text: SettingsText) { if Ranks.isFirst { writeError("note: \(text.option)\n") } }

/// Says several things that a user may want to know.
func writeNotes(_ texts: [String]) { for text in texts { writeNote("\(text)") } }
