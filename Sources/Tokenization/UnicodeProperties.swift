/// The sets of code points that regular expressions name, as Oniguruma has them in `tokenizers` 0.20.3: Unicode 14.0.
enum UnicodeProperties {
  /// `\s`: White_Space.
  static let space = classes(.space)
  /// `\d`: Nd.
  static let digit = categories { $0 == "Nd" }
  /// `\w` in brackets: letters, those in circles and squares too, marks, digits, letters that are numbers and connecting punctuation.
  static let wordInClass = categories { ["L", "M"].contains($0.prefix(1)) || ["Nd", "Nl", "Pc"].contains($0) }
    .union(ScalarSet([0x24B6...0x24E9, 0x1F130...0x1F149, 0x1F150...0x1F169, 0x1F170...0x1F189]))
  /// `\w` by itself, which counts the superscripts and fractions of Latin-1 as well.
  static let word = wordInClass.union(ScalarSet([0xB2...0xB3, 0xB9...0xB9, 0xBC...0xBE]))
  /// Letters that have other cases, or may have.
  static let cased = categories { ["Lu", "Ll", "Lt", "Lm", "Mn", "Mc", "Nl", "So"].contains($0) }

  /// The set of `\p{name}`: a general category, by its short name or its long one, or a script; nil for another name. Case, blanks,
  /// hyphens and underscores of a name do not count.
  static func set(named name: String) -> ScalarSet? {
    let key = String(decoding: name.utf8.filter { !" -_".utf8.contains($0) }.map { $0 >= 65 && $0 <= 90 ? $0 | 0x20 : $0 }, as: UTF8.self)
    if let category = categoryNames[key] { return categories { $0.utf8.starts(with: category.utf8) } }
    switch key {
    case "any": return .all
    case "space", "whitespace": return space
    case "digit": return digit
    case "word": return wordInClass
    case "lc": return categories { ["Lu", "Ll", "Lt"].contains($0) }
    default: return script(key)
    }
  }

  private static let categoryNames: [String: String] = {
    var names = [
      "letter": "L", "mark": "M", "combiningmark": "M", "number": "N", "punctuation": "P", "symbol": "S", "separator": "Z", "other": "C",
      "uppercaseletter": "Lu", "lowercaseletter": "Ll", "titlecaseletter": "Lt", "modifierletter": "Lm", "otherletter": "Lo",
      "nonspacingmark": "Mn", "spacingmark": "Mc", "enclosingmark": "Me", "decimalnumber": "Nd", "letternumber": "Nl",
      "othernumber": "No", "connectorpunctuation": "Pc", "dashpunctuation": "Pd", "openpunctuation": "Ps", "closepunctuation": "Pe",
      "initialpunctuation": "Pi", "finalpunctuation": "Pf", "otherpunctuation": "Po", "mathsymbol": "Sm", "currencysymbol": "Sc",
      "modifiersymbol": "Sk", "othersymbol": "So", "spaceseparator": "Zs", "lineseparator": "Zl", "paragraphseparator": "Zp",
      "control": "Cc", "format": "Cf", "surrogate": "Cs", "privateuse": "Co", "unassigned": "Cn",
    ]
    for category in words(in: GeneralCategoryData.names) {
      names[category.lowercased()] = category
      names[category.prefix(1).lowercased()] = String(category.prefix(1))
    }
    return names
  }()

  private static func classes(_ wanted: UnicodeClass) -> ScalarSet {
    runs(of: UnicodeClassData.runs) { UnicodeClass(rawValue: UInt8($0)).contains(wanted) }
  }

  private static func categories(_ isWanted: (String) -> Bool) -> ScalarSet {
    let wanted = words(in: GeneralCategoryData.names).map(isWanted)
    return runs(of: GeneralCategoryData.runs) { wanted[Int($0)] }
  }

  private static func script(_ key: String) -> ScalarSet? {
    guard let index = words(in: ScriptData.names).firstIndex(of: key) else { return nil }
    return runs(of: ScriptData.runs) { $0 == UInt32(index) }
  }

  /// The code points of all runs `value.length ` whose value is wanted.
  private static func runs(of text: StaticString, _ isWanted: (UInt32) -> Bool) -> ScalarSet {
    var ranges: [ClosedRange<UInt32>] = []
    var start: UInt32 = 0
    Base36.forEachRecord(in: text) { numbers, _ in
      if isWanted(numbers[0]) { ranges.append(start...(start + numbers[1] - 1)) }
      start += numbers[1]
    }
    return ScalarSet(ranges)
  }

  private static func words(in text: StaticString) -> [String] {
    text.withUTF8Buffer { $0.split(separator: UInt8(ascii: " ")).map { String(decoding: $0, as: UTF8.self) } }
  }
}
