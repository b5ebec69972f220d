import Platform

/// What is wrong with a file: where, what was found there, and what was expected instead.
///
/// Every reader and writer of files throws this one type, and so does the parser of JSON, whose texts come out of them.
/// `description` is a single sentence that a user can act on; the parts stand beside it for programs. Names that come out of a
/// file are shown escaped and shortened, since they may be hostile.
public struct CheckpointError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The spot inside the file that an error speaks about.
  public enum Place: Equatable, Sendable {
    /// The file as a whole.
    case file
    /// A byte offset from the beginning of the file or text.
    case byte(Int)
    /// A tensor, by name.
    case tensor(String)
    /// A key of a configuration, header or index.
    case key(String)
    /// A member of a zip archive, and the byte offset inside the member where one is known.
    case member(String, byte: Int? = nil)
  }

  /// The path of the file or folder, or what stands for it (such as "standard input").
  public let file: String
  /// Where in the file.
  public let place: Place
  /// What was found, with the offending numbers.
  public let found: String
  /// What was expected instead and, where there is one, the cure.
  public let expected: String
  /// The error of a failed system call; nil where the contents are at fault.
  public let systemError: Errno?

  /// Describes wrong contents.
  public init(file: String, place: Place = .file, found: String, expected: String) {
    self.file = file
    self.place = place
    self.found = found
    self.expected = expected
    systemError = nil
  }

  /// Describes a failed system call.
  ///
  /// - Parameters:
  ///   - call: the name of the call, for the message.
  ///   - code: what it failed with.
  public init(file: String, call: String, code: Errno, expected: String) {
    self.file = file
    self.place = .file
    self.found = "\"\(code)\" (errno \(code.rawValue) of \(call))"
    self.expected = expected
    systemError = code
  }

  /// Whether there is no file of this name, so that another name may be tried.
  public var isMissingFile: Bool { systemError == .noSuchFileOrDirectory }

  /// Whether the system failed (permission, space, device: exit code 5) rather than the input being missing, of the wrong kind or
  /// wrong inside (exit code 3).
  public var isSystemFailure: Bool {
    guard let systemError else { return false }
    // These say that the path itself names nothing usable; any other failure is the system's.
    return ![.noSuchFileOrDirectory, .notDirectory, .isDirectory, .fileNameTooLong, .tooManySymbolicLinkLevels].contains(systemError)
  }

  /// One sentence: file, place, found, expected.
  public var description: String {
    let spot =
      switch place {
      case .file: ""
      case .byte(let offset): ", byte \(offset)"
      case .tensor(let name): ", tensor \(quoted(name))"
      case .key(let name): ", key \(quoted(name))"
      case .member(let name, let offset?): ", member \(quoted(name)) at byte \(offset)"
      case .member(let name, nil): ", member \(quoted(name))"
      }
    return "\(file)\(spot): found \(found); expected \(expected)"
  }
}

/// Calls the system; its error becomes one that names the file, the call and what was wanted.
package func systemCall<R>(_ call: String, _ file: String, _ expected: @autoclosure () -> String, _ body: () throws -> R) throws -> R {
  do { return try body() } catch let error as Errno {
    throw CheckpointError(file: file, call: call, code: error, expected: expected())
  }
}

/// A name from a file, made safe for one line of a terminal: in quotes, control characters escaped, cut after 200 characters.
package func quoted(_ name: String) -> String { "\"" + presentable(name, escaping: ["\"", "\\"]) + "\"" }

/// The first 200 characters, or as many as are asked for, of a text from a file, with control characters, line separators and `marks` escaped.
package func presentable(_ whole: String, escaping marks: [Unicode.Scalar] = [], limit: Int = 200) -> String {
  var text = ""
  for scalar in whole.unicodeScalars.prefix(limit) {
    switch scalar {
    case _ where marks.contains(scalar): text += "\\\(scalar)"
    case _ where [.control, .format, .lineSeparator, .paragraphSeparator].contains(scalar.properties.generalCategory):
      text += "\\u{\(String(scalar.value, radix: 16, uppercase: true))}"
    default: text.unicodeScalars.append(scalar)
    }
  }
  return text + (whole.unicodeScalars.count > limit ? "…" : "")
}
