/// What a call brings.
struct Arguments {
  var positional: [Value] = []
  var named: [(name: String, value: Value)] = []

  /// No arguments, or these.
  init(_ positional: [Value] = [], named: [(name: String, value: Value)] = []) {
    self.positional = positional
    self.named = named
  }

  /// The arguments in the order of the parameters; nil where one was not given.
  ///
  /// - Throws: ``TemplateError`` for too many, unknown or doubled ones, and where one of the first `required` is missing.
  func bound(_ function: String, _ parameters: [String], required: Int = 0) throws -> [Value?] {
    guard positional.count <= parameters.count else {
      throw TemplateError("'\(function)' takes at most \(parameters.count) arguments, found \(positional.count)")
    }
    var values: [Value?] = positional + [Value?](repeating: nil, count: parameters.count - positional.count)
    for (name, value) in named {
      guard let i = parameters.firstIndex(of: name) else { throw TemplateError("'\(function)' takes no argument '\(name)'") }
      guard values[i] == nil else { throw TemplateError("'\(function)' got the argument '\(name)' twice") }
      values[i] = value
    }
    if let i = values.prefix(required).firstIndex(where: { $0 == nil }) {
      throw TemplateError("'\(function)' lacks the argument '\(parameters[i])'")
    }
    return values
  }
}

extension Value {
  /// The text of an argument.
  func text(_ what: String) throws -> Scalars {
    guard case .string(let text) = self else {
      if case .undefined(let value) = self { throw value.error }
      throw TemplateError("\(what) is of the type '\(type)', expected a string")
    }
    return text.scalars
  }

  /// The whole number of an argument.
  func integer(_ what: String) throws -> Int {
    guard let value = index else {
      if case .undefined(let value) = self { throw value.error }
      throw TemplateError("\(what) is of the type '\(type)', expected an integer")
    }
    return value
  }
}
