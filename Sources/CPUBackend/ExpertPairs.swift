import Tensors

/// The pairs of tokens and experts, those of some tokens at a time.
struct Pairs {
  let slots: Int
  /// Pairs; behind their rows lie those of slots that chose nobody.
  let count: Int
  let chunks: [PairChunk]
  /// Where in a tile each row lies, in expert order.
  let places: Buffer<Int32>
  let rowOfSlot: UnsafeMutablePointer<Int32>

  init(_ routing: Routing<CPUFloat>, on backend: CPUFloat) {
    let (offsets, tokenOfRow) = (backend.integers(routing.offsets), backend.integers(routing.tokenOfRow))
    count = Int(offsets[routing.experts])
    let (slots, rowOfSlot) = (routing.slots, backend.integers(routing.rowOfSlot))
    (self.slots, self.rowOfSlot) = (slots, rowOfSlot)
    places = backend.core.pool.buffer(max(1, count))
    var next = (0..<routing.experts).map { Int(offsets[$0]) }  // an expert's first row that no chunk has
    var (chunks, token): ([PairChunk], Int) = ([], 0)
    while token < routing.tokens {
      let first = token
      var rows = 0
      while token < routing.tokens {
        let more = (token * slots..<(token + 1) * slots).count { rowOfSlot[$0] >= 0 }
        if rows > 0, rows + more > PairTile.mostRows(routing.experts) { break }
        (rows, token) = (rows + more, token + 1)
      }
      var (runs, place): ([PairChunk.Run], Int) = ([], 0)
      for expert in 0..<routing.experts {
        let (begin, end) = (next[expert], Int(offsets[expert + 1]))
        while next[expert] < end, Int(tokenOfRow[next[expert]]) < token {
          places.pointer[next[expert]] = Int32(place)
          (next[expert], place) = (next[expert] + 1, place + 1)
        }
        if next[expert] > begin {
          runs.append(PairChunk.Run(expert: expert, rows: begin..<next[expert], place: place - next[expert] + begin))
        }
      }
      chunks.append(PairChunk(tokens: first..<token, runs: runs))
    }
    self.chunks = chunks
  }
}

/// Tokens that follow each other, and their pairs.
struct PairChunk {
  /// Rows of one expert, and where in a tile they begin.
  struct Run {
    let expert: Int
    let rows: Range<Int>
    let place: Int
  }

  let tokens: Range<Int>
  let runs: [Run]
}

/// What a thread forms of a chunk's pairs in a strip of columns.
struct PairTile {
  /// Columns of a strip.
  static let width = 128

  /// The most pairs of a chunk: three tiles of 512 fill most of a second-level cache of 1 MB. More than 16 experts have more, and leave
  /// that cache, because each would have few rows for a product. (`route` gives a token no expert twice, so a token's pairs fit.)
  static func mostRows(_ experts: Int) -> Int { max(512, 32 * experts) }

  /// Numbers of the three tiles and the mask, where there are so many rows in all.
  static func count(rows: Int, experts: Int) -> Int { (3 * min(rows, mostRows(experts)) + 1) * width }

  let a, c, k: Rows<Float>
  /// The mask of a row of which nothing is dropped.
  let ones: UnsafeMutablePointer<UInt8>

  init(_ memory: UnsafeMutablePointer<Float>, rows: Int, experts: Int) {
    let (count, width) = (min(rows, Self.mostRows(experts)), Self.width)
    func tile(_ i: Int) -> Rows<Float> { Rows(base: memory + i * count * width, count: count, width: width, stride: width) }
    (a, c, k) = (tile(0), tile(1), tile(2))
    ones = UnsafeMutableRawPointer(memory + 3 * count * width).bindMemory(to: UInt8.self, capacity: width)
    ones.update(repeating: 0xff, count: width / 8)
  }
}
