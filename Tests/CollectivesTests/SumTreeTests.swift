import Collectives
import Testing

@Suite struct SumTreeTests {
  /// Numbers of any bits, their magnitudes over six decades, so that nearly every sum rounds.
  private func numbers(_ count: Int, seed: Int) -> [Float] {
    (0..<count).map { i in
      var z = UInt64(i) &* 0x9e37_79b9_7f4a_7c15 ^ UInt64(count) << 52 ^ UInt64(seed) << 40
      z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
      z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
      z ^= z >> 31
      return Float(Int32(truncatingIfNeeded: z)) * 0x1p-31 * Float(bitPattern: UInt32(127 - Int(z >> 59 & 15)) << 23)
    }
  }

  private func root(_ values: [Float], ranks: Int) throws -> Float {
    let tree = SumTree(leaves: values.count)
    var all = TreeSums<Float>()
    for rank in 0..<ranks {
      var own = TreeSums<Float>()
      for leaf in tree.leaves(of: rank, of: ranks) { own.add(values[leaf], at: .init(leaf: leaf)) { $0 += $1 } }
      #expect(own.nodes.map(\.node) == tree.nodes(of: rank, of: ranks))
      for (node, value) in own.nodes { all.add(value, at: node) { $0 += $1 } }
    }
    return try #require(all.root { $0 += $1 })
  }

  @Test func theRootsBitsDoNotDependOnTheNumberOfRanks() throws {
    var (cases, differingFromOrder) = (0, 0)
    for leaves in 1...64 {
      for seed in 0..<20 {
        let values = numbers(leaves, seed: seed)
        let alone = try root(values, ranks: 1)
        differingFromOrder += alone == values.reduce(0, +) ? 0 : 1
        for ranks in 2...17 {
          cases += 1
          #expect(try root(values, ranks: ranks).bitPattern == alone.bitPattern, "\(leaves) leaves, \(ranks) ranks")
        }
      }
    }
    #expect(cases == 20_480 && differingFromOrder > 600, "the order must matter: \(differingFromOrder)")
  }

  @Test func oneRankHoldsLogarithmicallyManyValues() {
    for leaves in 1...130 {
      var (sums, most) = (TreeSums<Int>(), 0)
      for leaf in 0..<leaves {
        most = max(most, sums.nodes.count + 1)  // the leaf that is being computed beside those that wait
        sums.add(1, at: .init(leaf: leaf)) { $0 += $1 }
      }
      #expect(sums.root { $0 += $1 } == leaves)
      #expect(most <= SumTree(leaves: leaves).values, "\(leaves) leaves: \(most)")
    }
    #expect([1, 2, 3, 4, 5, 8, 9].map { SumTree(leaves: $0).values } == [1, 2, 3, 3, 4, 4, 5])
  }

  @Test func leavesAreDealtOutInOrderAndEvenly() {
    for leaves in 0...40 {
      for ranks in 1...9 {
        let parts = (0..<ranks).map { SumTree(leaves: leaves).leaves(of: $0, of: ranks) }
        #expect(parts.flatMap { Array($0) } == Array(0..<leaves))
        #expect((parts.map(\.count).max() ?? 0) - (parts.map(\.count).min() ?? 0) <= 1)
      }
    }
  }

  @Test func aloneTheTreeIsAddedToo() {
    let values: [Float] = [1, 0x1p-24, 0x1p-24]
    var own = TreeSums<[Float]>()
    func add(_ a: inout [Float], _ b: [Float]) { a[0] += b[0] }
    for (leaf, value) in values.enumerated() { own.add([value], at: .init(leaf: leaf), add) }
    let tree = SumTree(leaves: 3)
    #expect(Solo().sum(own.nodes, count: 1, of: tree) == [1], "(1 + 2⁻²⁴) + 2⁻²⁴ rounds to 1 twice")
    #expect(Solo().sum([(node: SumTree.Node, value: [Float])](), count: 2, of: SumTree(leaves: 0)) == [0, 0])
  }
}
