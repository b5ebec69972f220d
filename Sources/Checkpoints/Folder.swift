#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Folders on disk: made, listed, renamed and removed. Errors are `CheckpointError`s of the system.
public enum Folder {
  /// Whether there is something of this name.
  public static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  /// The absolute path of what is there, without links.
  ///
  /// - Throws: `CheckpointError` if nothing is.
  public static func absolute(_ path: String) throws -> String {
    guard let resolved = realpath(path, nil) else {
      throw CheckpointError(file: path, call: "realpath", code: errno, expected: "a path that exists")
    }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  /// Makes a folder unless it is there.
  ///
  /// - Throws: `CheckpointError` if the system refuses.
  public static func create(_ path: String) throws {
    guard mkdir(path, 0o777) == 0 || errno == EEXIST else {
      throw CheckpointError(file: path, call: "mkdir", code: errno, expected: "a folder that can be made")
    }
  }

  /// The names of what a folder holds, in order; none if it cannot be read.
  public static func names(in path: String) -> [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// Flushes a file, or the names in a folder, to the device.
  ///
  /// - Throws: `CheckpointError` if the system refuses.
  public static func sync(_ path: String) throws {
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else {
      throw CheckpointError(file: path, call: "open", code: errno, expected: "a file or folder that can be synced")
    }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else {
      throw CheckpointError(file: path, call: "fsync", code: errno, expected: "a file or folder that can be synced")
    }
  }

  /// Gives a file or folder another name.
  ///
  /// - Throws: `CheckpointError` if the system refuses.
  public static func rename(_ path: String, to target: String) throws {
    #if canImport(Glibc)
      let result = Glibc.rename(path, target)
    #else
      let result = Darwin.rename(path, target)
    #endif
    guard result == 0 else { throw CheckpointError(file: target, call: "rename", code: errno, expected: "a name that is free") }
  }

  /// Removes a folder of plain files; what cannot be removed stays.
  public static func remove(_ path: String) {
    for name in names(in: path) { unlink("\(path)/\(name)") }
    rmdir(path)
  }
}
