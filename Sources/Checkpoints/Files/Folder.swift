import JSON
import Platform

/// Folders on disk: made, listed, renamed and removed. Errors are `CheckpointError`s of the system.
public enum Folder {
  /// Whether there is something of this name.
  public static func exists(_ path: String) -> Bool { (try? Stat(path)) != nil }

  /// The absolute path of what is there, without links.
  ///
  /// - Throws: `CheckpointError` if nothing is.
  public static func absolute(_ path: String) throws -> String {
    try systemCall("realpath", path, "a path that exists") { try POSIX.canonicalPath(path) }
  }

  /// Makes a folder unless it is there.
  ///
  /// - Throws: `CheckpointError` if the system refuses.
  public static func create(_ path: String) throws {
    try systemCall("mkdir", path, "a folder that can be made") {
      do { try POSIX.makeFolder(path) } catch .fileExists {}
    }
  }

  /// The names of what a folder holds, in order; none if it cannot be read.
  public static func names(in path: String) -> [String] { (POSIX.names(in: path) ?? []).sorted() }

  /// Gives a file or folder another name.
  ///
  /// - Throws: `CheckpointError` if the system refuses.
  public static func rename(_ path: String, to target: String) throws {
    try systemCall("rename", target, "a name that is free") { try POSIX.move(path, to: target) }
  }

  /// Removes a folder of plain files; what cannot be removed stays.
  public static func remove(_ path: String) {
    for name in names(in: path) { try? POSIX.removeFile("\(path)/\(name)") }
    try? POSIX.removeFolder(path)
  }
}
