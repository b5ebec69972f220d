import Synchronization

/// What a handle stands for.
protocol Held: AnyObject, Sendable {
  /// What `mixlora_text` returns.
  var text: HeldText { get }
}

/// Everything that callers in C hold, by numbers that are never given twice.
///
/// The table is locked only while it is looked at, so that giving something back never waits for a computation.
final class Handles: Sendable {
  /// Those of the process.
  static let all = Handles()

  private struct Table {
    var last: UInt64 = 0
    var objects: [UInt64: any Held] = [:]
  }

  private let table = Mutex(Table())

  /// How many there are, for tests.
  var count: Int { table.withLock { $0.objects.count } }

  func add(_ object: some Held) -> UInt64 {
    table.withLock { table in
      table.last += 1
      table.objects[table.last] = object
      return table.last
    }
  }

  func object(_ handle: UInt64) -> (any Held)? { table.withLock { $0.objects[handle] } }

  /// What a handle stands for, if it is of the kind that the caller needs.
  ///
  /// - Throws: `InterfaceError` naming the handle, what it is and what was expected.
  func object<Kind>(_ handle: UInt64, _ expected: String, as kind: Kind.Type = Kind.self) throws -> Kind {
    guard let object = object(handle) else {
      throw InterfaceError("found handle \(handle), which is not one, or was released; expected \(expected)")
    }
    guard let found = object as? Kind else {
      throw InterfaceError("found handle \(handle) of another kind; expected \(expected)")
    }
    return found
  }

  /// Gives a handle back; the object goes, outside of the lock, when nobody uses it any more.
  func release(_ handle: UInt64) {
    let object = table.withLock { $0.objects.removeValue(forKey: handle) }
    withExtendedLifetime(object) {}
  }
}

/// What is wrong with a call.
struct InterfaceError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

/// A text for C: UTF-8 with a zero behind it.
final class HeldText: @unchecked Sendable {  // nobody writes behind `init`
  let pointer: UnsafePointer<CChar>

  init(_ text: String) {
    let bytes = Array(text.utf8)
    let memory = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count + 1)
    for (i, byte) in bytes.enumerated() { memory[i] = CChar(bitPattern: byte) }
    memory[bytes.count] = 0
    pointer = UnsafePointer(memory)
  }

  deinit { pointer.deallocate() }
}

/// A text that is all there is to say: an error, an answer.
final class Answer: Held {
  let text: HeldText

  init(_ text: String) { self.text = HeldText(text) }
}
