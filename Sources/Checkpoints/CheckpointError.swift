#if canImport(Darwin)
  import Darwin
#else
  import Glibc
#endif

/// What is wrong with a file: where, what was found there, and what was expected instead.
///
/// Every reader and writer of this module throws this one type. `description` is a single sentence that a user can act on; the
/// parts stand beside it for programs. Names that come out of a file are shown escaped and shortened, since they may be hostile.
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
  /// The `errno` of a failed system call; nil where the contents are at fault.
  public let systemError: Int32?

  /// Describes wrong contents.
  public init(file: String, place: Place = .file, found: String, expected: String) {
    self.file = file
    self.place = place
    self.found = found
    self.expected = expected
    self.systemError = nil
  }

  /// Describes a failed system call.
  ///
  /// - Parameters:
  ///   - call: the name of the call, for the message.
  ///   - code: its `errno`, read right after the call.
  public init(file: String, call: String, code: Int32, expected: String) {
    self.file = file
    self.place = .file
    self.found = "\"\(String(cString: strerror(code)))\" (errno \(code) of \(call))"
    self.expected = expected
    self.systemError = code
  }

  /// Whether there is no file of this name, so that another name may be tried.
  public var isMissingFile: Bool { systemError == ENOENT }

  /// Whether the system failed (permission, space, device: exit code 5) rather than the input being missing, of the wrong kind or
  /// wrong inside (exit code 3).
  public var isSystemFailure: Bool {
    guard let systemError else { return false }
    // These say that the path itself names nothing usable; any other failure is the system's.
    return ![ENOENT, ENOTDIR, EISDIR, ENAMETOOLONG, ELOOP].contains(systemError)
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

extension CheckpointError {
  /// A tensor that a source does not have.
  static func missingTensor(_ name: String, file: String, among count: Int) -> CheckpointError {
    CheckpointError(file: file, place: .tensor(name), found: "no tensor of this name among \(count)", expected: "it to be there")
  }
}
