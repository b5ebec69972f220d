/// The order in which the gradients of a step's micro-batches are added: a binary tree over their numbers, whatever the number of ranks.
///
///     node (l,i) covers leaves i·2ˡ ..< (i+1)·2ˡ        (l,i) = (l−1,2i) + (l−1,2i+1)
///
/// For leaves beyond the last nothing is added. A rank has neighbouring leaves, adds what lies wholly among them and hands on the
/// nodes that are left: one where its leaves are those of a node, O(log leaves) otherwise. A sum of two numbers does not depend on
/// their order, so the bits of the root depend on the leaves alone.
public struct SumTree: Sendable {
  /// How many there are.
  public let leaves: Int

  /// The tree over so many leaves.
  public init(leaves: Int) { self.leaves = leaves }

  /// A sum of neighbouring leaves.
  public struct Node: Hashable, Comparable, Sendable {
    /// 0 for a leaf.
    public let level: Int
    /// Its number among those of its level.
    public let index: Int

    /// A leaf.
    public init(leaf index: Int) { (level, self.index) = (0, index) }

    private init(level: Int, index: Int) { (self.level, self.index) = (level, index) }

    /// The node above, of which this is the right half.
    ///
    /// - Precondition: it is a right half.
    var parent: Node { Node(level: level + 1, index: index >> 1) }

    /// Whether this is the right half of a node whose left half is `left`.
    func completes(_ left: Node) -> Bool { index & 1 == 1 && left.level == level && left.index == index - 1 }

    /// In the order of their leaves.
    public static func < (a: Node, b: Node) -> Bool { a.index << a.level < b.index << b.level }
  }

  /// The leaves of a rank: neighbours, as evenly as possible; none where there are more ranks than leaves.
  public func leaves(of rank: Int, of size: Int) -> Range<Int> { leaves * rank / size..<leaves * (rank + 1) / size }

  /// The nodes that a rank hands on.
  public func nodes(of rank: Int, of size: Int) -> [Node] {
    var sums = TreeSums<Void>()
    for leaf in leaves(of: rank, of: size) { sums.add((), at: Node(leaf: leaf)) { _, _ in } }
    return sums.nodes.map(\.node)
  }

  /// The most values that are held at a time while one rank adds all leaves: ⌈log₂ leaves⌉ + 1.
  public var values: Int { leaves > 1 ? Int.bitWidth - (leaves - 1).leadingZeroBitCount + 1 : 1 }
}

/// Nodes in the order of their leaves, each added to its left half as soon as both are there, like the carries of a binary counter.
public struct TreeSums<Value> {
  /// What is there.
  public private(set) var nodes: [(node: SumTree.Node, value: Value)] = []

  /// Nothing yet.
  public init() {}

  /// Takes the next node.
  ///
  /// - Parameter sum: adds its second value, that of earlier leaves, to the first.
  public mutating func add(_ value: consuming Value, at node: SumTree.Node, _ sum: (inout Value, Value) throws -> Void) rethrows {
    var node = node
    while let left = nodes.last, node.completes(left.node) {
      nodes.removeLast()
      try sum(&value, left.value)
      node = node.parent
    }
    nodes.append((node, value))
  }

  /// The sum of all, nil of none; the nodes are gone.
  public mutating func root(_ sum: (inout Value, Value) throws -> Void) rethrows -> Value? {
    guard var value = nodes.popLast()?.value else { return nil }
    while let left = nodes.popLast() { try sum(&value, left.value) }
    return value
  }
}
