import CMPI

// Sums in the order of a tree. `MPI_Allreduce` adds in an order that depends on the number of ranks, on the library and on its settings;
// so numbers are only moved by MPI, and added here.
extension MPI {
  /// Numbers that are exchanged at a time: what is received stays small, and few enough messages wait for one another.
  private static var block: Int { 8 << 20 }

  /// See ``Collective/sum(_:count:of:)``.
  public func sum<T: BinaryFloatingPoint>(_ own: [(node: SumTree.Node, value: [T])], count: Int, of tree: SumTree) throws -> [T] {
    let nodes = (0..<size).map { tree.nodes(of: $0, of: size) }
    guard own.map(\.node) == nodes[rank], own.allSatisfy({ $0.value.count == count }) else {
      throw CollectiveError("rank \(rank) hands on other nodes than those of its \(tree.leaves(of: rank, of: size)) leaves.")
    }
    if nodes.allSatisfy(\.isEmpty) || count == 0 { return Array(repeating: 0, count: count) }
    _ = try rollCall()
    let isHalved = size.nonzeroBitCount == 1 && nodes.allSatisfy { $0.count == 1 && $0[0].level == nodes[0][0].level }
    return try Array(unsafeUninitializedCapacity: count) { result, written in
      try isHalved ? exchangeHalves(own[0].value, into: result) : exchangeParts(own.map(\.value), nodes, into: result)
      written = count
    }
  }

  /// Where each of 2ᵏ ranks has one node of the same level: ranks exchange halves with the next neighbour, then quarters with the one two
  /// away and so on, as the tree adds; then the way back. k messages each way, the far ones small; 2(n−1)/n of the numbers leave a rank.
  private func exchangeHalves<T: BinaryFloatingPoint>(_ own: [T], into result: UnsafeMutableBufferPointer<T>) throws {
    own.withUnsafeBufferPointer { copy($0, into: result) }
    let received = UnsafeMutableBufferPointer<T>.allocate(capacity: min(Self.block, result.count) / 2 + 1)
    defer { received.deallocate() }
    for start in stride(from: 0, to: result.count, by: Self.block) {
      var range = start..<min(start + Self.block, result.count)
      var halves: [(partner: Int, mine: Range<Int>, theirs: Range<Int>)] = []
      for bit in 0..<size.trailingZeroBitCount {
        let (partner, middle) = (rank ^ 1 << bit, range.lowerBound + range.count / 2)
        let (low, high) = (range.lowerBound..<middle, middle..<range.upperBound)
        let (mine, theirs) = rank < partner ? (low, high) : (high, low)
        try exchange(result[theirs], to: partner, received[0..<mine.count], from: partner)
        add(UnsafeMutableBufferPointer(rebasing: received[0..<mine.count]), into: UnsafeMutableBufferPointer(rebasing: result[mine]))
        halves.append((partner, mine, theirs))
        range = mine
      }
      for half in halves.reversed() { try exchange(result[half.mine], to: half.partner, result[half.theirs], from: half.partner) }
    }
  }

  /// Block by block: each rank owns a part of the block, gets all nodes of it and adds them in the order of the tree; then all parts go to
  /// everyone.
  private func exchangeParts<T: BinaryFloatingPoint>(
    _ own: [[T]], _ nodes: [[SumTree.Node]], into result: UnsafeMutableBufferPointer<T>
  ) throws {
    let part = (min(Self.block, result.count) + size - 1) / size
    let buffers = nodes.joined().map { _ in UnsafeMutableBufferPointer<T>.allocate(capacity: part) }
    let (whole, sum) = (
      UnsafeMutableBufferPointer<T>.allocate(capacity: part * size), UnsafeMutableBufferPointer<T>.allocate(capacity: part)
    )
    defer { for buffer in buffers + [whole, sum] { buffer.deallocate() } }
    for start in stride(from: 0, to: result.count, by: part * size) {
      func range(_ owner: Int) -> Range<Int> {
        let from = min(start + owner * part, result.count)
        return from..<min(from + part, result.count)
      }
      var (values, next): ([(node: SumTree.Node, value: UnsafeMutableBufferPointer<T>)], Int) = ([], 0)
      for shift in 0..<size {  // 0: this rank's own nodes
        let (to, from) = ((rank + shift) % size, (rank - shift + size) % size)
        for i in 0..<max(own.count, nodes[from].count) {
          var into = Slice(base: sum, bounds: 0..<0)
          if i < nodes[from].count {
            into = buffers[next][0..<range(rank).count]
            values.append((nodes[from][i], UnsafeMutableBufferPointer(rebasing: into)))
            next += 1
          }
          if shift == 0 {
            own[i].withUnsafeBufferPointer {
              copy(UnsafeBufferPointer(rebasing: $0[range(rank)]), into: UnsafeMutableBufferPointer(rebasing: into))
            }
          } else {
            try (i < own.count ? own[i] : []).withUnsafeBufferPointer { out in
              let out = UnsafeMutableBufferPointer(mutating: out)
              try exchange(
                i < own.count ? out[range(to)] : out[0..<0], to: i < own.count ? to : -1, into, from: i < nodes[from].count ? from : -1)
            }
          }
        }
      }
      var sums = TreeSums<UnsafeMutableBufferPointer<T>>()
      for (node, value) in values.sorted(by: { $0.node < $1.node }) { sums.add(value, at: node) { add($1, into: $0) } }
      if let root = sums.root({ add($1, into: $0) }) { copy(UnsafeBufferPointer(root), into: sum) }
      try call("MPI_Allgather", sending: part * MemoryLayout<T>.stride * (size - 1)) {
        mpi_allgather(sum.baseAddress, whole.baseAddress, Int32(part), Self.type(T.self))
      }
      let numbers = UnsafeBufferPointer(whole)[..<min(part * size, result.count - start)]
      copy(UnsafeBufferPointer(rebasing: numbers), into: UnsafeMutableBufferPointer(rebasing: result[start...]))
    }
  }

  private func exchange<T: BinaryFloatingPoint>(
    _ out: Slice<UnsafeMutableBufferPointer<T>>, to: Int, _ into: Slice<UnsafeMutableBufferPointer<T>>, from: Int
  ) throws {
    let (out, into) = (UnsafeMutableBufferPointer(rebasing: out), UnsafeMutableBufferPointer(rebasing: into))
    try call("MPI_Sendrecv", of: from < 0 ? to : from, sending: out.count * MemoryLayout<T>.stride) {
      mpi_exchange(
        out.baseAddress, Int32(out.count), Int32(to), into.baseAddress, Int32(into.count), Int32(from), Self.type(T.self))
    }
  }

  private static func type<T>(_: T.Type) -> mpi_type { MemoryLayout<T>.size == 8 ? MPI_TYPE_DOUBLE : MPI_TYPE_FLOAT }

  /// b = a, in one piece: element by element, in code that is compiled for any T, took as long as a step's matrices.
  private func copy<T>(_ a: UnsafeBufferPointer<T>, into b: UnsafeMutableBufferPointer<T>) {
    UnsafeMutableRawBufferPointer(b).copyMemory(from: UnsafeRawBufferPointer(a))
  }

  /// b += a. T is Float or Double, as a backend's scalars are.
  private func add<T: BinaryFloatingPoint>(_ a: UnsafeMutableBufferPointer<T>, into b: UnsafeMutableBufferPointer<T>) {
    func add<Number: BinaryFloatingPoint>(_: Number.Type) {
      let (a, b) = (UnsafeRawBufferPointer(a).bindMemory(to: Number.self), UnsafeMutableRawBufferPointer(b).bindMemory(to: Number.self))
      for i in b.indices { b[i] += a[i] }
    }
    if MemoryLayout<T>.size == 8 { add(Double.self) } else { add(Float.self) }
  }
}
