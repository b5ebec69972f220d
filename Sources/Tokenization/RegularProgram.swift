/// A compiled regular expression: instructions over classes of code points.
///
/// All sets of the expression cut the code points into kinds, so that one look into a table tells a code point's kind, and one bit whether
/// a set has that kind. Kind 0 is the end of the text, which is in no set.
struct RegularProgram: Sendable {
  struct Instruction {
    enum Operation: UInt8 {
      /// One code point of `set`, then the next instruction.
      case one
      /// Code points of `set`, `low` to `high` of them.
      case run
      /// The next instruction if `set` may begin it, then `target` if `rest` may begin that.
      case branch
      case jump
      /// Matches from the next instruction on, up to `accept`, without moving; goes on at `target`.
      case ahead
      /// The same from `low` code points earlier.
      case behind
      /// The same, and moves to the end of the match.
      case atomic
      case anchor
      case accept
    }

    var operation: Operation
    var isNegated = false
    /// How often a run gives code points back.
    var mode = RegularNode.Mode.greedy
    /// Inside of an `ahead`, where it does not matter how far a match goes.
    var isInAhead = false
    /// Indices into `sets`; −1 for any kind, the end included.
    var set: Int32 = -1
    var rest: Int32 = -1
    var target: Int32 = 0
    var low: Int32 = 0
    var high: Int32 = .max
    /// Which row of the memory of failures is this instruction's.
    var row: Int32 = -1
  }

  /// The most that a number of times may be.
  static let repetitionLimit = 1000
  private static let instructionLimit = 4096
  /// A memory of failures has so many bits for each byte of the text.
  private static let rowLimit = 256

  private(set) var code: [Instruction] = []
  private(set) var rows = 0
  /// The set of what a match may begin with, or −1.
  private(set) var start: Int32 = -1
  private(set) var kinds = Kinds([])

  private var sets: [ScalarSet] = []
  private var indices: [ScalarSet: Int32] = [:]
  private var aheadDepth = 0

  /// What the rest of a match begins with: code points, or anything where it may be empty or look around.
  private struct First {
    var set: ScalarSet?
    /// Whether the rest matches everywhere, if only the empty text.
    var isCertain: Bool

    func or(_ other: First) -> First {
      First(set: set.flatMap { one in other.set.map { one.union($0) } }, isCertain: isCertain || other.isCertain)
    }
  }

  init(_ node: RegularNode) throws {
    let end = First(set: nil, isCertain: true)
    try emit(node, before: end)
    try add(Instruction(operation: .accept))
    start = index(first(node, before: end))
    kinds = Kinds(sets)
    (sets, indices) = ([], [:])
  }

  /// The program that matches one code point of a set.
  init(_ set: ScalarSet) {
    code = [Instruction(operation: .one, set: 0), Instruction(operation: .accept)]
    start = 0
    kinds = Kinds([set])
  }

  // MARK: Analysis

  private func first(_ node: RegularNode, before follow: First) -> First {
    switch node {
    case .set(let set): return First(set: set, isCertain: false)
    case .sequence(let parts): return parts.reversed().reduce(follow) { first($1, before: $0) }
    case .alternatives(let parts): return parts.dropFirst().reduce(first(parts[0], before: follow)) { $0.or(first($1, before: follow)) }
    case .repeated(let part, let low, _, _):
      if low > 0 { return First(set: first(part, before: follow).set, isCertain: false) }
      return first(part, before: follow).or(follow)
    case .ahead, .behind, .anchor: return First(set: follow.set, isCertain: false)
    case .atomic(let part): return First(set: first(part, before: follow).set, isCertain: false)
    }
  }

  private mutating func index(_ set: ScalarSet) -> Int32 {
    if let known = indices[set] { return known }
    indices[set] = Int32(sets.count)
    sets.append(set)
    return Int32(sets.count - 1)
  }

  private mutating func index(_ first: First) -> Int32 { first.set.map { index($0) } ?? -1 }

  // MARK: Code

  private mutating func add(_ instruction: Instruction) throws {
    guard code.count < Self.instructionLimit else { throw PatternError("more than \(Self.instructionLimit) steps") }
    var instruction = instruction
    instruction.isInAhead = aheadDepth > 0
    if instruction.operation == .run || instruction.operation == .branch {
      instruction.row = Int32(rows)
      rows += 1
      guard rows <= Self.rowLimit else { throw PatternError("more than \(Self.rowLimit) choices") }
    }
    code.append(instruction)
  }

  private mutating func emit(_ node: RegularNode, before follow: First) throws {
    switch node {
    case .set(let set): try add(Instruction(operation: .one, set: index(set)))
    case .sequence(let parts):
      var follows = [follow]
      for part in parts.dropFirst().reversed() { follows.append(first(part, before: follows[follows.count - 1])) }
      for (part, follow) in zip(parts, follows.reversed()) { try emit(part, before: follow) }
    case .alternatives(let parts): try emitAlternatives(parts, before: follow)
    case .repeated(let part, let low, let high, let mode): try emit(repeated: part, low, high, mode, before: follow)
    case .ahead(let part, let isNegated):
      let place = code.count
      try add(Instruction(operation: .ahead, isNegated: isNegated))
      try emitInner(part, at: place, depth: aheadDepth + 1)
    case .behind(let part, let isNegated):
      let parts = if case .alternatives(let parts) = part { parts } else { [part] }
      // Each alternative has its length: not behind any of them, or behind one.
      if isNegated || parts.count == 1 {
        for part in parts { try emitBehind(part, isNegated: isNegated) }
      } else {
        try emitAlternatives(parts.map { .behind($0, isNegated: false) }, before: follow)
      }
    case .atomic(let part):
      let place = code.count
      try add(Instruction(operation: .atomic))
      try emitInner(part, at: place, depth: 0)
    case .anchor(let anchor): try add(Instruction(operation: .anchor, target: anchor.rawValue))
    }
  }

  private mutating func emitBehind(_ part: RegularNode, isNegated: Bool) throws {
    guard let width = part.width else { throw PatternError("looking behind by no fixed length") }
    let place = code.count
    try add(Instruction(operation: .behind, isNegated: isNegated, low: Int32(width)))
    try emitInner(part, at: place, depth: 0)
  }

  /// A program inside of the program, which begins at `place`.
  private mutating func emitInner(_ part: RegularNode, at place: Int, depth: Int) throws {
    let outer = aheadDepth
    aheadDepth = depth
    try emit(part, before: First(set: nil, isCertain: true))
    try add(Instruction(operation: .accept))
    aheadDepth = outer
    code[place].target = Int32(code.count)
  }

  private mutating func emitAlternatives(_ parts: [RegularNode], before follow: First) throws {
    let firsts = parts.map { first($0, before: follow) }
    var ends: [Int] = []
    for (position, part) in parts.enumerated() {
      guard position < parts.count - 1 else {
        try emit(part, before: follow)
        break
      }
      let place = code.count
      let others = firsts[(position + 2)...].reduce(firsts[position + 1]) { $0.or($1) }
      try add(Instruction(operation: .branch, set: index(firsts[position]), rest: index(others)))
      try emit(part, before: follow)
      ends.append(code.count)
      try add(Instruction(operation: .jump))
      code[place].target = Int32(code.count)
    }
    for end in ends { code[end].target = Int32(code.count) }
  }

  private mutating func emit(
    repeated part: RegularNode, _ low: Int, _ high: Int?, _ mode: RegularNode.Mode, before follow: First
  ) throws {
    if case .set(let set) = part {
      // Nothing is given back where what follows cannot begin with it, or matches anyway.
      let isFinal = follow.isCertain || follow.set.map { $0.isDisjoint(with: set) } ?? false
      let mode = mode == .greedy && (isFinal || low == high) ? .possessive : mode
      return try add(
        Instruction(operation: .run, mode: mode, set: index(set), low: Int32(low), high: high.map { Int32($0) } ?? .max))
    }
    let body = first(part, before: follow)
    let again = body.or(follow)
    for copy in 0..<low {
      try emit(part, before: copy < low - 1 ? First(set: body.set, isCertain: false) : low == high ? follow : again)
    }
    // Greedy: the part, else what follows. Lazy: what follows, else the part.
    var exits: [Int] = []
    func loopBody(_ program: inout RegularProgram, back: Bool) throws {
      let place = program.code.count
      let (part1, rest) = (program.index(body), program.index(follow))
      if mode == .lazy {
        try program.add(Instruction(operation: .branch, set: rest, rest: part1))
        exits.append(program.code.count)
        try program.add(Instruction(operation: .jump))
        program.code[place].target = Int32(program.code.count)
      } else {
        try program.add(Instruction(operation: .branch, set: part1, rest: rest))
        exits.append(place)
      }
      try program.emit(part, before: again)
      if back { try program.add(Instruction(operation: .jump, target: Int32(place))) }
    }
    if let high {
      for _ in low..<max(low, high) { try loopBody(&self, back: false) }
    } else {
      try loopBody(&self, back: true)
    }
    for exit in exits { code[exit].target = Int32(code.count) }
  }
}

/// The kinds into which sets cut the code points.
struct Kinds: Sendable {
  /// Bits of set s: `masks[s * words..<(s + 1) * words]`.
  private(set) var masks: [UInt64] = []
  private(set) var words = 1
  /// 256 code points a page; the first is that of ASCII.
  private(set) var pages: [UInt16] = []
  private(set) var pageOfHigh: [UInt16] = []
  /// The kind of a byte that is no UTF-8: that of U+FFFD.
  private(set) var broken = 0

  init(_ sets: [ScalarSet]) {
    var borders: [(place: UInt32, set: Int)] = []
    for (index, set) in sets.enumerated() {
      for range in set.ranges { borders += [(range.lowerBound, index), (range.upperBound + 1, index)] }
    }
    borders.sort { $0.place < $1.place }
    // From each place on, a kind.
    var runs: [(start: UInt32, kind: UInt16)] = []
    var members = [UInt64](repeating: 0, count: (sets.count + 63) / 64)
    var known: [[UInt64]: UInt16] = [:]
    var kinds: [[UInt64]] = []
    var next = 0
    var place: UInt32 = 0
    while place < 0x110000 {
      while next < borders.count, borders[next].place == place {
        members[borders[next].set / 64] ^= 1 << UInt64(borders[next].set % 64)
        next += 1
      }
      if let kind = known[members] {
        runs.append((place, kind))
      } else {
        kinds.append(members)
        known[members] = UInt16(kinds.count)  // 0 is the end
        runs.append((place, UInt16(kinds.count)))
      }
      place = next < borders.count ? borders[next].place : 0x110000
    }
    words = (kinds.count + 64) / 64
    masks = [UInt64](repeating: 0, count: sets.count * words)
    for (kind, members) in kinds.enumerated() {
      for set in sets.indices where members[set / 64] >> UInt64(set % 64) & 1 != 0 {
        masks[set * words + (kind + 1) / 64] |= 1 << UInt64((kind + 1) % 64)
      }
    }
    fill(runs)
    broken = Int(pages[Int(pageOfHigh[0xFF]) << 8 | 0xFD])
  }

  private mutating func fill(_ runs: [(start: UInt32, kind: UInt16)]) {
    var uniform: [UInt16: UInt16] = [:]
    var run = 0
    for high in 0..<UInt32(0x1100) {
      let first = high << 8
      while run + 1 < runs.count, runs[run + 1].start <= first { run += 1 }
      let isUniform = run + 1 == runs.count || runs[run + 1].start >= first + 256
      if isUniform, let page = uniform[runs[run].kind] {
        pageOfHigh.append(page)
        continue
      }
      let page = UInt16(pages.count >> 8)
      if isUniform { uniform[runs[run].kind] = page }
      pageOfHigh.append(page)
      var inner = run
      for value in first..<(first + 256) {
        while inner + 1 < runs.count, runs[inner + 1].start <= value { inner += 1 }
        pages.append(runs[inner].kind)
      }
    }
  }
}
