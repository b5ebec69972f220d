import CEmbedded
import CMixLoRA
import MixLoRA

// What each function does is said in the header, Sources/CMixLoRA/mixlora.h; `@c @implementation` holds each to its declaration there.

/// See the header.
@c @implementation
public func mixlora_interface() -> Int32 { 2 }

/// See the header.
@c @implementation
public func mixlora_text(_ handle: mixlora_handle) -> UnsafePointer<CChar>? { Handles.all.object(handle)?.text.pointer }

/// See the header.
@c @implementation
public func mixlora_release(_ handle: mixlora_handle) { Handles.all.release(handle) }

/// See the header.
@c @implementation
public func mixlora_open(_ settings: UnsafePointer<CChar>?, _ error: UnsafeMutablePointer<mixlora_handle>?) -> mixlora_handle {
  held(error) {
    let settings = try Settings(settings)
    var precision = Arithmetic.float32
    try settings.take(&precision, "precision")
    let threads = try settings.threads()
    return switch precision {
    case .float32: try ModelOn(settings, on: CPUFloat(threads: threads)) as any Held
    case .float64: try ModelOn(settings, on: CPUDouble(threads: threads))
    }
  }
}

/// See the header.
@c @implementation
public func mixlora_points(_ model: mixlora_handle, _ error: UnsafeMutablePointer<mixlora_handle>?) -> mixlora_handle {
  held(error) { Answer(try open(model).points()) }
}

/// See the header.
@c @implementation
public func mixlora_tokens(
  _ model: mixlora_handle, _ text: UnsafePointer<CChar>?, _ error: UnsafeMutablePointer<mixlora_handle>?
) -> mixlora_handle {
  held(error) { Answer(try open(model).tokens(string(text, "a text"))) }
}

/// See the header.
@c @implementation
public func mixlora_trace(
  _ model: mixlora_handle, _ settings: UnsafePointer<CChar>?, _ error: UnsafeMutablePointer<mixlora_handle>?
) -> mixlora_handle {
  held(error) { try open(model).trace(Settings(settings)) }
}

/// See the header.
@c @implementation
public func mixlora_tensor(
  _ trace: mixlora_handle, _ name: UnsafePointer<CChar>?, _ array: UnsafeMutablePointer<mixlora_array>?,
  _ error: UnsafeMutablePointer<mixlora_handle>?
) -> mixlora_handle {
  described(array, error) {
    try Handles.all.object(trace, "a trace", as: RecordedTrace.self).tensor(string(name, "a tensor's name"))
  }
}

/// See the header.
@c @implementation
public func mixlora_train(_ settings: UnsafePointer<CChar>?, _ error: UnsafeMutablePointer<mixlora_handle>?) -> mixlora_handle {
  held(error) {
    let settings = try Settings(settings)
    var recipe = try TrainingRecipe(settings)
    var precision = Arithmetic.float32
    try settings.take(&precision, "precision")
    let threads = try settings.threads()
    try settings.finish()
    try recipe.check()
    if let text = try recipe.differences(fromOwnAdapter: { settings.reader.value(pythonName($0)) != nil }).first {
      throw SettingsError(text)
    }
    recipe.threads = threads
    return switch precision {
    case .float32: try ModelOn(training: recipe, on: CPUFloat(threads: threads)) as any Held
    case .float64: try ModelOn(training: recipe, on: CPUDouble(threads: threads))
    }
  }
}

/// See the header.
@c @implementation
public func mixlora_train_step(_ training: mixlora_handle, _ error: UnsafeMutablePointer<mixlora_handle>?) -> mixlora_handle {
  held(error) { Answer(try open(training).step()) }
}

/// See the header.
@c @implementation
public func mixlora_train_save(
  _ training: mixlora_handle, _ folder: UnsafePointer<CChar>?, _ error: UnsafeMutablePointer<mixlora_handle>?
) -> mixlora_handle {
  held(error) { Answer(try open(training).save(to: string(folder, "a folder"))) }
}

/// See the header.
@c @implementation
public func mixlora_compare(_ settings: UnsafePointer<CChar>?, _ error: UnsafeMutablePointer<mixlora_handle>?) -> mixlora_handle {
  held(error) { Answer(try ComparisonSettings(Settings(settings)).answer()) }
}

/// See the header.
@c @implementation
public func mixlora_file(
  _ name: UnsafePointer<CChar>?, _ array: UnsafeMutablePointer<mixlora_array>?, _ error: UnsafeMutablePointer<mixlora_handle>?
) -> mixlora_handle {
  described(array, error) {
    let name = try string(name, "a file's name")
    let helpers = (0..<capture_helper_count()).map { ("capture/" + String(cString: capture_helper_at($0).name), capture_helper_at($0)) }
    let files = helpers + (0..<embedded_file_count()).map { (String(cString: embedded_file_at($0).name), embedded_file_at($0)) }
    guard let file = files.first(where: { $0.0 == name })?.1 else {
      throw InterfaceError("found no file '\(name)'; expected one of \(files.map(\.0).joined(separator: ", "))")
    }
    let bytes = UnsafeBufferPointer(start: file.bytes, count: file.size)
    guard file.is_short else { return HeldArray(name, [bytes.count], bytes) }
    return ShortQuestions.records(bytes).withUnsafeBufferPointer { HeldArray(name, [$0.count], $0) }
  }
}

private func open(_ handle: mixlora_handle) throws -> any OpenModel { try Handles.all.object(handle, "a model") }

/// The handle of what `form` forms; of an error its text.
private func held(_ error: UnsafeMutablePointer<mixlora_handle>?, _ form: () throws -> any Held) -> mixlora_handle {
  do { return Handles.all.add(try form()) } catch let problem {
    let text = (problem as? SettingsError)?.text.text { pythonName($0.name) } ?? "\(problem)"
    error?.pointee = Handles.all.add(Answer(text))
    return 0
  }
}

/// The same for an array, which is described to the caller.
private func described(
  _ array: UnsafeMutablePointer<mixlora_array>?, _ error: UnsafeMutablePointer<mixlora_handle>?, _ form: () throws -> HeldArray
) -> mixlora_handle {
  held(error) {
    guard let array else { throw InterfaceError("found NULL; expected a place for the array") }
    let found = try form()
    array.pointee = found.description
    return found
  }
}
