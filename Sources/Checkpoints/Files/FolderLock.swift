import JSON
import Platform

/// Keeps other runs out of a folder as long as it lives.
///
/// It is an advisory lock of the system on the folder itself: it leaves no file behind, and it goes with the process, however that ends.
public final class FolderLock: Sendable {
  /// Whether others are kept out; false on a file system that has no locks.
  public let isHeld: Bool
  private let folder: FileDescriptor

  /// Takes the lock of a folder.
  ///
  /// - Throws: `CheckpointError` naming the folder if somebody has it, or if the folder cannot be opened.
  public init(_ path: String) throws {
    folder = try systemCall("open", path, "a folder that can be read") {
      try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
    }
    do { isHeld = try POSIX.lock(folder) } catch {
      isHeld = false
      return
    }
    guard isHeld else {
      throw CheckpointError(
        file: path, found: "another run at work in this folder, which it has locked",
        expected: "a folder of its own for each run; wait for the other one's end or choose another folder")
    }
  }

  deinit { try? folder.close() }
}
