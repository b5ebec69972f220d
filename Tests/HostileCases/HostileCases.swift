import Checkpoints
import Foundation

/// The hostile files of the repository and what each must give, from `Fixtures/hostile/cases.json` (its `make.py` explains the keys).
public enum HostileCases {
  /// A file or folder, and what must come of opening it.
  public struct Case: Sendable {
    /// The path below the folder of fixtures; also the name of the case.
    public let path: String
    /// The reader that it is for.
    public let opens: String
    /// The names of the tensors that are read, where the case says so.
    public let tensors: [String]?
    /// nil for a file that must be read.
    public let failure: Failure?
  }

  /// The error that a case must give.
  public struct Failure: Sendable {
    /// 3: the input is wrong; 5: the system failed.
    public let exit: Int
    /// The path of the file that the error names, below the folder of fixtures.
    public let file: String
    /// Where in the file.
    public let place: CheckpointError.Place
    /// Parts of the message.
    public let says: [String]
  }

  /// The folder of fixtures.
  public static let folder =
    #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/") + "/Fixtures/hostile"

  /// All cases; an empty list if the manifest cannot be read, which the tests that count the cases notice.
  public static let all: [Case] = (try? read()) ?? []

  /// The names of the cases for one reader.
  public static func names(_ opens: String) -> [String] { all.filter { $0.opens == opens }.map(\.path) }

  /// Reads the manifest.
  public static func read() throws -> [Case] {
    let file = folder + "/cases.json"
    func wrong(_ key: String) -> CheckpointError {
      CheckpointError(file: file, place: .key(key), found: "another value", expected: "a case as make.py writes it")
    }
    func string(_ json: JSON?, _ key: String) throws -> String {
      guard let string = json?.stringValue else { throw wrong(key) }
      return string
    }
    guard let list = try JSON(contentsOf: file).arrayValue else { throw wrong("") }
    return try list.map { json in
      let path = try string(json["path"], "path")
      let tensors = try json["tensors"]?.arrayValue.map { try $0.map { try string($0, "tensors") } }
      let opens = try string(json["opens"], "opens")
      guard let says = json["says"]?.arrayValue else {
        guard tensors != nil || json["valid"] == true else { throw wrong(path) }
        return Case(path: path, opens: opens, tensors: tensors, failure: nil)
      }
      guard let exit = json["exit"]?.intValue, exit == 3 || exit == 5, !says.isEmpty else { throw wrong(path) }
      let failure = Failure(
        exit: exit, file: try json["in"].map { try string($0, "in") } ?? path, place: try place(json["place"]) ?? { throw wrong(path) }(),
        says: try says.map { try string($0, "says") })
      return Case(path: path, opens: opens, tensors: tensors, failure: failure)
    }
  }

  private static func place(_ json: JSON?) -> CheckpointError.Place? {
    guard let json else { return .file }
    if let name = json["tensor"]?.stringValue { return .tensor(name) }
    if let name = json["key"]?.stringValue { return .key(name) }
    if let name = json["member"]?.stringValue { return .member(name, byte: json["byte"]?.intValue) }
    return json["byte"]?.intValue.map { .byte($0) }
  }

  /// Opens a case and says how the outcome differs from the manifest; nil if it does not.
  ///
  /// - Parameter open: opens the path that it is given and returns the names of the tensors it read.
  public static func difference(_ name: String, opening open: (String) throws -> [String]) -> String? {
    guard let wanted = all.first(where: { $0.path == name }) else { return "no case \(name)" }
    do {
      let tensors = try open("\(folder)/\(name)")
      if let failure = wanted.failure { return "no error, expected \(failure)" }
      guard let expected = wanted.tensors, !expected.elementsEqual(tensors, by: { $0.utf8.elementsEqual($1.utf8) }) else { return nil }
      return "tensors \(tensors), expected \(expected)"
    } catch let error as CheckpointError {
      guard let failure = wanted.failure else { return "\(error), expected no error" }
      let isRight =
        error.file == "\(folder)/\(failure.file)" && isSame(error.place, failure.place) && error.isSystemFailure == (failure.exit == 5)
        && failure.says.allSatisfy { error.description.utf8.contains($0.utf8) } && isPresentable(error, of: wanted)
      return isRight ? nil : "\(error) (\(error.place)), expected \(failure)"
    } catch {
      return "\(error) is no CheckpointError"
    }
  }

  /// Whether two places are the same, by the bytes of their names.
  private static func isSame(_ a: CheckpointError.Place, _ b: CheckpointError.Place) -> Bool {
    // Swift's equality of strings merges canonically equal names; their debug descriptions keep the scalars apart.
    a == b && "\(a)".utf8.elementsEqual("\(b)".utf8)
  }

  /// One line without control characters that a terminal would obey, and short however long the names in the file are.
  private static func isPresentable(_ error: CheckpointError, of wanted: Case) -> Bool {
    error.description.utf8.count < folder.utf8.count + wanted.path.utf8.count + 900
      && error.description.unicodeScalars.allSatisfy { ![.control, .format].contains($0.properties.generalCategory) }
  }

  /// The files below the folder of fixtures that no case covers, and the cases that nothing is there for, though they are no test of
  /// a missing file.
  public static func strays() -> [String] {
    let walk = FileManager.default.enumerator(atPath: folder)
    var files: [String] = []
    while let path = walk?.nextObject() as? String {
      var isFolder: ObjCBool = false
      if FileManager.default.fileExists(atPath: "\(folder)/\(path)", isDirectory: &isFolder), !isFolder.boolValue { files.append(path) }
    }
    let own = ["make.py", "README.md", "cases.json"]
    let uncovered = files.filter { file in !own.contains(file) && !all.contains { file == $0.path || file.hasPrefix($0.path + "/") } }
    let empty = all.map(\.path).filter { path in
      !path.contains("/not-there") && !files.contains { $0 == path || $0.hasPrefix(path + "/") }
    }
    return uncovered + empty
  }
}

extension String.UTF8View {
  /// Whether these bytes stand somewhere in it.
  fileprivate func contains(_ part: String.UTF8View) -> Bool {
    let (text, part) = (Array(self), Array(part))
    return part.isEmpty || text.indices.contains { text[$0...].starts(with: part) }
  }
}
