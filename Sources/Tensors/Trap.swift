/// Stops the program: a wrong shape is the caller's bug, and going on would only hide where it began.
///
/// Bad *input* never comes here; files and command lines are checked before they reach an operation.
public func trap(_ message: @autoclosure () -> String, file: StaticString = #fileID, line: UInt = #line) -> Never {
  fatalError(message(), file: file, line: line)
}

/// Traps unless every named tensor has the shape that the operation needs.
///
///     requireShapes("rmsNorm", ("x", x.shape, Shape(n, c)), ("weight", weight.shape, Shape(c)))
public func requireShapes(_ operation: StaticString, _ checks: (name: StaticString, found: Shape, expected: Shape)...) {
  for check in checks where check.found != check.expected {
    trap("\(operation): \(check.name) is \(check.found), expected \(check.expected)")
  }
}
