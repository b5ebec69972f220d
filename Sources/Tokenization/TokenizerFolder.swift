import Checkpoints

/// The files of a Hugging Face folder that say something of its tokenizer, read as transformers' `AutoTokenizer` 4.46.3 reads them.
struct TokenizerFolder {
  private let folder: String
  private let settings: (file: String, json: JSON)?
  private let model: (file: String, json: JSON)?
  private let generation: (file: String, json: JSON)?
  private let kind: TokenizerClass
  /// Special tokens by the keys that name them, in the order in which they are added.
  private var special: [(key: String, file: String, token: Named)] = []
  /// Tokens that the files define, by id.
  private var defined: [(id: Int, token: Named)] = []
  /// Whether they come from `added_tokens.json`, where the tokens of `tokenizer.json` count more.
  private var isLegacy = true

  /// A token that a file names.
  private struct Named {
    var content: [UInt8]
    /// The flags; nil where only the text stands there.
    var flags: JSON?
    var isSpecial: Bool?
    /// Whether no file names it, but the class.
    var isDefault = false
  }

  private static let keys = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]

  /// Reads all but the tokenizer itself.
  ///
  /// - Throws: `CheckpointError` for a file that is no JSON, and a class that is not known.
  init(_ folder: String) throws {
    self.folder = folder
    settings = try Self.optional(folder + "/tokenizer_config.json")
    model = try Self.optional(folder + "/config.json")
    generation = try Self.optional(folder + "/generation_config.json")
    kind = try Self.kind(settings, model)
    try readTokens()
  }

  private static func optional(_ file: String) throws -> (file: String, json: JSON)? {
    do {
      let json = try JSON(contentsOf: file)
      guard json.objectValue != nil else { throw CheckpointError(file: file, found: json.summary, expected: "a JSON object") }
      return (file, json)
    } catch let error as CheckpointError where error.isMissingFile {
      return nil
    }
  }

  private static func kind(_ settings: (file: String, json: JSON)?, _ model: (file: String, json: JSON)?) throws -> TokenizerClass {
    for place in [settings, model].compactMap({ $0 }) {
      guard let value = place.json["tokenizer_class"], value != .null else { continue }
      guard let kind = value.stringValue.flatMap(TokenizerClass.init(name:)) else {
        throw CheckpointError(
          file: place.file, place: .key("tokenizer_class"), found: value.summary,
          expected: "a class that is known here, or \"PreTrainedTokenizerFast\" where tokenizer.json says all")
      }
      return kind
    }
    return TokenizerClass(modelType: model?.json["model_type"]?.stringValue)
  }

  // MARK: Tokens

  private mutating func readTokens() throws {
    var values: [String: (file: String, value: JSON)] = [:]
    var additional: [(file: String, value: JSON)] = []
    func list(_ place: (file: String, json: JSON)) -> [(file: String, value: JSON)] {
      (place.json["additional_special_tokens"]?.arrayValue ?? []).map { (place.file, $0) }
    }
    if let settings {
      for key in Self.keys { values[key] = settings.json[key].map { (settings.file, $0) } }
      additional = list(settings)
    }
    if let tokens = settings?.json["added_tokens_decoder"], let file = settings?.file {
      guard let members = tokens.objectValue?.members else {
        throw Self.error(file, "added_tokens_decoder", tokens, "an object of id: token")
      }
      isLegacy = false
      defined = try members.map { member in
        guard let id = Int(member.key) else { throw Self.error(file, "added_tokens_decoder", JSON(member.key), "ids as keys") }
        return (id, try Self.named(member.value, file, "added_tokens_decoder.\(member.key)"))
      }
    } else {
      // The way of older folders; where the settings define tokens, these files are not looked at.
      if let map = try Self.optional(folder + "/special_tokens_map.json") {
        for key in Self.keys { if let value = map.json[key] { values[key] = (map.file, value) } }
        additional += list(map).filter { new in !additional.contains { $0.value == new.value } }
      }
      if let added = try Self.optional(folder + "/added_tokens.json") {
        let names = Set(
          (values.values.map(\.value) + additional.map(\.value)).compactMap { $0.stringValue ?? $0["content"]?.stringValue }.map(
            ByteKey.init))
        for member in added.json.objectValue?.members ?? [] {
          guard let id = member.value.intValue else { throw Self.error(added.file, member.key, member.value, "an id") }
          defined.append((id, Named(content: Array(member.key.utf8), flags: [:], isSpecial: names.contains(ByteKey(member.key)))))
        }
      }
    }
    defined.sort { $0.id < $1.id }
    for key in Self.keys {
      if let (file, value) = values[key] {
        if value != .null { special.append((key, file, try Self.named(value, file, key))) }
      } else if let token = kind.defaults[key] {
        special.append((key, settings?.file ?? folder, Named(content: Array(token.utf8), isDefault: true)))
      }
    }
    for (file, value) in additional {
      special.append(("additional_special_tokens", file, try Self.named(value, file, "additional_special_tokens")))
    }
    for (key, token) in kind.further {
      let value = settings?.json[key] ?? JSON(token)
      if value != .null { special.append((key, folder, try Self.named(value, settings?.file ?? folder, key))) }
    }
  }

  private static func named(_ value: JSON, _ file: String, _ key: String) throws -> Named {
    if let text = value.stringValue, !text.utf8.isEmpty { return Named(content: Array(text.utf8)) }
    guard let text = value["content"]?.stringValue, !text.utf8.isEmpty else { throw error(file, key, value, "a token") }
    return Named(content: Array(text.utf8), flags: value, isSpecial: value["special"]?.boolValue)
  }

  private static func error(_ file: String, _ key: String, _ found: JSON, _ expected: String) -> CheckpointError {
    CheckpointError(file: file, place: .key(key), found: found.excerpt, expected: expected)
  }

  // MARK: The tokenizer

  /// The tokenizer of the folder.
  ///
  /// - Throws: `CheckpointError` naming what is missing, wrong or not understood.
  func description() throws -> TokenizerDescription {
    var (description, isConverted) = try read()
    if kind.bytePairs == .codeGen, let file = settings?.file, try flag("add_bos_token") ?? false {
      throw Self.error(file, "add_bos_token", true, "false: the class does not take it")
    }
    var ids = Dictionary(description.vocabulary.map { (ByteKey(bytes: $0.text), $0.id) }) { _, last in last }
    for token in description.addedTokens { ids[ByteKey(bytes: token.content)] = token.id }
    // Without settings nobody has named the class's tokens: those that are not there are left out.
    let isNamed = settings != nil
    var special = special.filter { isNamed || ids[ByteKey(bytes: $0.token.content)] != nil }
    if !special.contains(where: { $0.key == "pad_token" }), settings?.json["pad_token"] == nil, let pad = padToken {
      special.append(("pad_token", folder, Named(content: pad)))
    }
    let taken = isLegacy && !isConverted ? Set(description.addedTokens.map { Int($0.id) }) : []
    add(defined.filter { !taken.contains($0.id) }.map(\.token), special, isConverted: isConverted, to: &description, &ids)
    func id(_ key: String) -> Int32? { special.first { $0.key == key }.flatMap { ids[ByteKey(bytes: $0.token.content)] } }
    if let end = try id("eos_token") ?? modelID("eos_token", description) { description.endToken = end }
    description.otherEndTokens = [generation, model].compactMap { $0?.json["eos_token_id"] }.flatMap { $0.arrayValue ?? [$0] }
      .compactMap { $0.intValue.flatMap(Int32.init(exactly:)) }
    if kind.template.isOwn, isNamed || id("bos_token") != nil {
      description.beginToken = id("bos_token")
      description.addsBeginToken = try adds("add_bos_token", kind.template.addsBeginToken, description.beginToken, "bos_token")
      description.addsEndToken = try adds("add_eos_token", false, id("eos_token"), "eos_token")
    } else if description.beginToken == nil {
      description.addsBeginToken = try isConverted && kind.bytePairs == .gpt2 && adds("add_bos_token", false, id("bos_token"), "bos_token")
      description.beginToken = try id("bos_token") ?? modelID("bos_token", description)
    }
    description.splitsControlTokens = settings?.json["split_special_tokens"]?.boolValue ?? false
    return description
  }

  /// The tokenizer before the settings, and whether it was made of a `tokenizer.model`.
  private func read() throws -> (TokenizerDescription, isConverted: Bool) {
    let file = folder + "/tokenizer.json"
    let prefix = try flag("add_prefix_space")
    if case .converted = kind.prefixSpace, prefix != nil { return (try converted(insteadOf: "add_prefix_space"), true) }
    do {
      let json = try JSON(contentsOf: file)
      return (try TokenizerDescription(kind.changed(json, addsPrefixSpace: prefix ?? false), file: file), false)
    } catch let error as CheckpointError where error.isMissingFile && error.file == file {
      if kind.converts.sentencePiece, MappedFile.isRegularFile(folder + "/tokenizer.model") {
        return (try converted(insteadOf: nil), true)
      }
      let (vocabulary, merges) = (folder + "/vocab.json", folder + "/merges.txt")
      guard let kind = kind.bytePairs, MappedFile.isRegularFile(vocabulary) else { throw error }
      if kind == .qwen2, prefix == true, let file = settings?.file {
        throw Self.error(file, "add_prefix_space", true, "false: the class does not take it with vocab.json")
      }
      return (try TokenizerDescription(vocabulary: vocabulary, merges: merges, kind, addsPrefixSpace: prefix ?? false), true)
    }
  }

  private func converted(insteadOf key: String?) throws -> TokenizerDescription {
    let file = folder + "/tokenizer.model"
    if let key, !MappedFile.isRegularFile(file) {
      throw CheckpointError(
        file: settings?.file ?? folder, place: .key(key), found: settings?.json[key]?.excerpt ?? "it",
        expected: "a tokenizer.model beside it, of which transformers makes the tokenizer where this key is set; or null")
    }
    var conversion = TokenizerDescription.SentencePieceSettings()
    conversion.isGemma = kind.converts.asGemma
    conversion.addsPrefixSpace = try flag("add_prefix_space") ?? true
    conversion.isLegacy = try flag("legacy") ?? true
    if conversion.isGemma {
      conversion.firstNames = try ["pad_token", "eos_token", "bos_token"].map { key in
        guard let token = special.first(where: { $0.key == key }) else {
          throw CheckpointError(
            file: settings?.file ?? folder, place: .key(key), found: "null", expected: "a token, which Gemma's class asks for")
        }
        return token.token.content
      }
    }
    return try TokenizerDescription(SentencePieceModel(contentsOf: file), file: file, conversion)
  }

  /// Adds the tokens that the files define or name: the flags that stand there count; one that is not there gets the next free id.
  private func add(
    _ defined: [Named], _ special: [(key: String, file: String, token: Named)], isConverted: Bool,
    to description: inout TokenizerDescription,
    _ ids: inout [ByteKey: Int32]
  ) {
    let names = Set(special.map { ByteKey(bytes: $0.token.content) })
    var places = Dictionary(description.addedTokens.enumerated().map { (ByteKey(bytes: $1.content), $0) }) { first, _ in first }
    let definitions = Set(defined.map { ByteKey(bytes: $0.content) })
    var next = max(Int32(description.vocabulary.count), (description.addedTokens.map(\.id).max() ?? -1) + 1)
    func add(_ token: Named, isSpecial: Bool) {
      let key = ByteKey(bytes: token.content)
      let id = ids[key] ?? next
      if ids.updateValue(id, forKey: key) == nil { next += 1 }
      func flag(_ name: String) -> Bool { token.flags?[name]?.boolValue ?? false }
      let added = AddedToken(
        id: id, content: token.content, isSpecial: isSpecial, isSingleWord: flag("single_word"), stripsLeft: flag("lstrip"),
        stripsRight: flag("rstrip"), isNormalized: token.flags?["normalized"]?.boolValue ?? !isSpecial)
      if let place = places[key] {
        description.addedTokens[place] = added
      } else {
        places[key] = description.addedTokens.count
        description.addedTokens.append(added)
      }
    }
    for token in defined {
      add(token, isSpecial: token.isSpecial ?? false || names.contains(ByteKey(bytes: token.content)))
    }
    for (_, _, token) in special {
      let key = ByteKey(bytes: token.content)
      let isWhole = token.flags != nil || kind.redefinesTokens || isConverted
      let isRedefined = isWhole && (token.isDefault || !definitions.contains(key))
      if isRedefined || places[key] == nil { add(token, isSpecial: true) }
    }
  }

  /// The special tokens by their keys, as `special_tokens_map` of transformers has them: what a chat template sees.
  var specialTokens: JSON.Object {
    var tokens = JSON.Object()
    for key in Self.keys {
      let token = special.first { $0.key == key }?.token.content
      let isPad = key == "pad_token" && settings?.json[key] == nil
      guard let text = token ?? (isPad ? padToken : nil) else { continue }
      tokens[key] = JSON(String(decoding: text, as: UTF8.self))
    }
    let additional = special.filter { $0.key == "additional_special_tokens" }.map {
      JSON(String(decoding: $0.token.content, as: UTF8.self))
    }
    if !additional.isEmpty { tokens["additional_special_tokens"] = .array(additional) }
    return tokens
  }

  // MARK: Values

  private var padToken: [UInt8]? {
    guard let json = try? JSON(contentsOf: folder + "/tokenizer.json") else { return nil }
    return json["padding"]?["pad_token"]?.stringValue.map { Array($0.utf8) }
  }

  private func flag(_ key: String) throws -> Bool? {
    guard let value = settings?.json[key], value != .null, let file = settings?.file else { return nil }
    guard let flag = value.boolValue else { throw Self.error(file, key, value, "true or false") }
    return flag
  }

  private func adds(_ key: String, _ fallback: Bool, _ token: Int32?, _ name: String) throws -> Bool {
    guard try flag(key) ?? fallback else { return false }
    guard token != nil else {
      throw CheckpointError(
        file: settings?.file ?? folder, place: .key(key), found: settings?.json[key]?.excerpt ?? "nothing, hence true",
        expected: "a \(name) beside it, or false")
    }
    return true
  }

  /// A token that the model's own files name by its id: the first of a list.
  private func modelID(_ name: String, _ description: TokenizerDescription) throws -> Int32? {
    for place in [generation, model].compactMap({ $0 }) {
      guard let value = place.json[name + "_id"], value != .null else { continue }
      guard let id = value.intValue ?? value.arrayValue?.first?.intValue, description.has(id: id) else {
        throw Self.error(place.file, name + "_id", value, "the id of a token of tokenizer.json")
      }
      return Int32(id)
    }
    return nil
  }
}
