extension RegularProgram {
  /// Runs the program on a text.
  func withMatcher(in bytes: UnsafeBufferPointer<UInt8>, _ body: (inout RegularMatcher) -> Void) {
    code.withUnsafeBufferPointer { code in
      kinds.masks.withUnsafeBufferPointer { masks in
        kinds.pages.withUnsafeBufferPointer { pages in
          kinds.pageOfHigh.withUnsafeBufferPointer { pageOfHigh in
            var matcher = RegularMatcher(
              program: self, bytes: bytes, code: code, masks: masks, pages: pages, pageOfHigh: pageOfHigh)
            body(&matcher)
          }
        }
      }
    }
  }
}

/// The state of a search: what is still to be tried, and what has failed.
///
/// A state is an instruction and a place. What failed once fails again, since nothing else decides it; after many steps such states are
/// remembered, and then each is tried once for the whole text. Looking ahead, success is remembered as well.
struct RegularMatcher {
  /// What to do when the way taken so far fails.
  private struct Choice {
    enum Kind: UInt8 {
      /// Go on at instruction `at` and place `place`.
      case other
      /// Let the run give back a code point: it has come to `place` and may go back to `floor`.
      case shorter
      /// Let the run take one more at `place`, of `left`.
      case longer
      /// Nothing: the states of the instruction from `floor` to `place` have failed.
      case failed
    }

    var kind: Kind
    var at: Int32
    var floor: Int
    var place: Int
    var left: Int32 = 0
  }

  private let program: RegularProgram
  private let bytes: UnsafeBufferPointer<UInt8>
  private let code: UnsafeBufferPointer<RegularProgram.Instruction>
  private let masks: UnsafeBufferPointer<UInt64>
  private let pages: UnsafeBufferPointer<UInt16>
  private let pageOfHigh: UnsafeBufferPointer<UInt16>
  private let words: Int

  private var part = 0..<0
  private var choices: [Choice] = []
  private var steps = 0
  private var stepLimit = 0
  /// A row of bits for each choosing instruction; empty until it takes long.
  private var failed: [UInt64] = []
  private var succeeded: [UInt64] = []

  fileprivate init(
    program: RegularProgram, bytes: UnsafeBufferPointer<UInt8>, code: UnsafeBufferPointer<RegularProgram.Instruction>,
    masks: UnsafeBufferPointer<UInt64>, pages: UnsafeBufferPointer<UInt16>, pageOfHigh: UnsafeBufferPointer<UInt16>
  ) {
    self.program = program
    self.bytes = bytes
    self.code = code
    self.masks = masks
    self.pages = pages
    self.pageOfHigh = pageOfHigh
    words = program.kinds.words
  }

  /// Hands on the matches in a part of the text. An empty match directly behind a match is passed over.
  mutating func forEachMatch(in part: Range<Int>, _ body: (Range<Int>) -> Void) {
    self.part = part
    steps = 0
    stepLimit = 1024 + 32 * part.count
    if !failed.isEmpty { (failed, succeeded) = ([], []) }
    var start = part.lowerBound
    var last = -1
    while start <= part.upperBound {
      let (kind, length) = scalar(at: start)
      if has(program.start, kind), let end = end(from: 0, at: start, kind, length), end > start || last != start {
        body(start..<end)
        last = end
        start = end
      } else {
        if start == part.upperBound { break }
        start += length
      }
    }
  }

  // MARK: The text

  @inline(__always)
  private func scalar(at place: Int) -> (kind: Int, length: Int) {
    guard place < part.upperBound else { return (0, 0) }
    let byte = bytes[place]
    if byte < 0x80 { return (Int(pages[Int(byte)]), 1) }
    let (value, length) = UTF8Scalars.scalar(bytes, at: place, end: part.upperBound)
    guard let value else { return (program.kinds.broken, 1) }
    return (Int(pages[Int(pageOfHigh[Int(value >> 8)]) << 8 | Int(value & 0xFF)]), length)
  }

  /// Where the code point before a place begins.
  @inline(__always)
  private func before(_ place: Int) -> Int {
    if bytes[place - 1] < 0x80 { return place - 1 }
    for length in 2...4 where place - length >= part.lowerBound {
      guard bytes[place - length] & 0xC0 != 0x80 else { continue }
      let found = UTF8Scalars.scalar(bytes, at: place - length, end: part.upperBound)
      return found.value != nil && found.length == length ? place - length : place - 1
    }
    return place - 1
  }

  @inline(__always)
  private func has(_ set: Int32, _ kind: Int) -> Bool {
    set < 0 || masks[Int(set) * words + kind >> 6] >> UInt64(truncatingIfNeeded: kind & 63) & 1 != 0
  }

  // MARK: The memory

  private var remembers: Bool { !failed.isEmpty }

  private mutating func rememberAfterLong() {
    guard steps > stepLimit, failed.isEmpty else { return }
    let size = (program.rows * (part.count + 1) + 63) / 64
    failed = [UInt64](repeating: 0, count: max(size, 1))
    succeeded = failed
  }

  private func bit(_ row: Int32, _ place: Int) -> Int { Int(row) * (part.count + 1) + place - part.lowerBound }

  private func isSet(_ bits: [UInt64], _ bit: Int) -> Bool { bits[bit >> 6] >> UInt64(bit & 63) & 1 != 0 }

  private func set(_ bits: inout [UInt64], _ row: Int32, _ places: ClosedRange<Int>) {
    for bit in bit(row, places.lowerBound)...bit(row, places.upperBound) { bits[bit >> 6] |= 1 << UInt64(bit & 63) }
  }

  /// Ends a program inside of the program, or all of it: what is on the way to its end has succeeded.
  private mutating func succeed(_ base: Int) {
    if choices.count == base { return }
    if remembers {
      for choice in choices[base...] where choice.kind != .other {
        let step = code[Int(choice.at)]
        guard step.isInAhead, choice.kind == .failed || step.high == .max else { continue }
        set(&succeeded, step.row, choice.floor...choice.place)
      }
    }
    choices.removeLast(choices.count - base)
  }

  // MARK: Matching

  /// Where the match ends that begins at a place with an instruction; nil without one.
  private mutating func end(from entry: Int, at start: Int) -> Int? {
    let (kind, length) = scalar(at: start)
    return end(from: entry, at: start, kind, length)
  }

  /// The same, with the kind and the length of the code point there.
  private mutating func end(from entry: Int, at start: Int, _ kind: Int, _ length: Int) -> Int? {
    let base = choices.count
    var at = entry
    var place = start
    var (kind, length) = (kind, length)
    while true {
      let step = code[at]
      var goesOn = true
      switch step.operation {
      case .accept:
        succeed(base)
        return place
      case .one:
        if has(step.set, kind) {
          place += length
          (kind, length) = scalar(at: place)
          at += 1
        } else {
          goesOn = false
        }
      case .jump: at = Int(step.target)
      case .branch:
        if !has(step.set, kind) {
          at = Int(step.target)
          break
        }
        steps += 1
        if remembers {
          let bit = bit(step.row, place)
          if step.isInAhead, isSet(succeeded, bit) {
            succeed(base)
            return place
          }
          goesOn = !isSet(failed, bit)
          choices.append(Choice(kind: .failed, at: Int32(at), floor: place, place: place))
        }
        if goesOn, has(step.rest, kind) { choices.append(Choice(kind: .other, at: step.target, floor: place, place: place)) }
        at += 1
      case .run:
        if remembers, step.high < .max, step.mode != .possessive {
          // The state of a bounded run is the one before its minimum.
          let bit = bit(step.row, place)
          if step.isInAhead, isSet(succeeded, bit) {
            succeed(base)
            return place
          }
          if isSet(failed, bit) {
            goesOn = false
            break
          }
          choices.append(Choice(kind: .failed, at: Int32(at), floor: place, place: place))
        }
        var taken: Int32 = 0
        while taken < step.low, has(step.set, kind) {
          place += length
          (kind, length) = scalar(at: place)
          taken += 1
        }
        if taken < step.low {
          goesOn = false
          break
        }
        if remembers || step.mode == .lazy {
          let outcome = carefulRun(step, at, &place, taken)
          if outcome == .succeeded {
            succeed(base)
            return place
          }
          goesOn = outcome == .open
          (kind, length) = scalar(at: place)
        } else {
          let floor = place
          while taken < step.high, has(step.set, kind) {
            place += length
            (kind, length) = scalar(at: place)
            taken += 1
          }
          if step.mode == .greedy, place > floor { choices.append(Choice(kind: .shorter, at: Int32(at), floor: floor, place: place)) }
          steps += place - floor
        }
        at += 1
      case .ahead:
        goesOn = (end(from: at + 1, at: place) != nil) != step.isNegated
        at = Int(step.target)
      case .behind:
        var first = place
        var left = step.low
        while left > 0, first > part.lowerBound { (first, left) = (before(first), left - 1) }
        goesOn = (left == 0 && end(from: at + 1, at: first) != nil) != step.isNegated
        at = Int(step.target)
      case .atomic:
        if let end = end(from: at + 1, at: place) {
          place = end
          (kind, length) = scalar(at: place)
        } else {
          goesOn = false
        }
        at = Int(step.target)
      case .anchor:
        goesOn = holds(RegularNode.Anchor(rawValue: step.target) ?? .textStart, at: place)
        at += 1
      }
      if !goesOn {
        guard let (next, there) = goBack(base) else { return nil }
        (at, place) = (next, there)
        (kind, length) = scalar(at: place)
      }
    }
  }

  private enum Outcome { case open, failed, succeeded }

  /// A run behind its minimum, with regard to what is remembered: where one state of an unbounded run failed, all before it that come
  /// to it have tried it already.
  private mutating func carefulRun(_ step: RegularProgram.Instruction, _ at: Int, _ place: inout Int, _ taken: Int32) -> Outcome {
    let floor = place
    let isBounded = step.high < .max
    if step.mode == .lazy {
      if remembers, !isBounded {
        let bit = bit(step.row, place)
        if step.isInAhead, isSet(succeeded, bit) { return .succeeded }
        if isSet(failed, bit) { return .failed }
      }
      choices.append(Choice(kind: .longer, at: Int32(at), floor: floor, place: place, left: step.high == .max ? .max : step.high - taken))
      return .open
    }
    var taken = taken
    while true {
      if !isBounded {
        let bit = bit(step.row, place)
        if step.isInAhead, isSet(succeeded, bit) { return .succeeded }
        if isSet(failed, bit) {
          let kind = step.mode == .greedy && place > floor ? Choice.Kind.shorter : .failed
          choices.append(Choice(kind: kind, at: Int32(at), floor: floor, place: place))
          return .failed
        }
      }
      let (kind, length) = scalar(at: place)
      guard taken < step.high, has(step.set, kind) else { break }
      place += length
      taken += 1
    }
    if step.mode == .greedy {
      if !isBounded || place > floor { choices.append(Choice(kind: .shorter, at: Int32(at), floor: floor, place: place)) }
    } else if !isBounded {
      choices.append(Choice(kind: .failed, at: Int32(at), floor: floor, place: place))
    }
    return .open
  }

  /// The next way to try; nil if all have failed.
  private mutating func goBack(_ base: Int) -> (at: Int, place: Int)? {
    rememberAfterLong()
    while choices.count > base {
      steps += 1
      let last = choices.count - 1
      let choice = choices[last]
      let step = code[Int(choice.at)]
      switch choice.kind {
      case .other:
        choices.removeLast()
        return (Int(choice.at), choice.place)
      case .failed:
        choices.removeLast()
        if remembers { set(&failed, step.row, choice.floor...choice.place) }
      case .shorter:
        if remembers, step.high == .max { set(&failed, step.row, choice.place...choice.place) }
        guard choice.place > choice.floor else {
          choices.removeLast()
          continue
        }
        let previous = before(choice.place)
        choices[last].place = previous
        if previous == choice.floor, !remembers || step.high < .max { choices.removeLast() }
        return (Int(choice.at) + 1, previous)
      case .longer:
        let (kind, length) = scalar(at: choice.place)
        let isKnown = remembers && step.high == .max && isSet(failed, bit(step.row, choice.place))
        guard !isKnown, choice.left > 0, has(step.set, kind) else {
          choices.removeLast()
          if remembers, step.high == .max { set(&failed, step.row, choice.floor...choice.place) }
          continue
        }
        choices[last].place += length
        if choice.left < .max { choices[last].left -= 1 }
        return (Int(choice.at) + 1, choice.place + length)
      }
    }
    return nil
  }

  private func holds(_ anchor: RegularNode.Anchor, at place: Int) -> Bool {
    switch anchor {
    case .textStart: place == part.lowerBound
    case .textEnd: place == part.upperBound
    case .lastLineEnd: place == part.upperBound || place == part.upperBound - 1 && bytes[place] == 0x0A
    case .lineStart: place == part.lowerBound || bytes[place - 1] == 0x0A && place < part.upperBound
    case .lineEnd: place == part.upperBound || bytes[place] == 0x0A
    case .wordBoundary: isWordBoundary(place)
    case .noWordBoundary: !isWordBoundary(place)
    }
  }

  private func isWordBoundary(_ place: Int) -> Bool {
    func isWord(_ place: Int) -> Bool {
      UTF8Scalars.scalar(bytes, at: place, end: part.upperBound).value.map { UnicodeProperties.word.contains($0) } ?? false
    }
    let left = place > part.lowerBound && isWord(before(place))
    let right = place < part.upperBound && isWord(place)
    return left != right
  }
}
