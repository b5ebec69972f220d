/// What the processes of a run, its ranks, do together. Every rank makes the same calls in the same order, from one thread at a time.
///
/// There are ``Solo``, one process, and ``MPI``.
public protocol Collective: Sendable {
  /// The number of this process, from 0.
  var rank: Int { get }
  /// How many there are.
  var size: Int { get }
  /// What was exchanged so far.
  var traffic: Traffic { get }
  /// Adds the leaves of a tree, of `count` numbers each.
  ///
  /// - Parameter own: what this rank hands on of them, `tree.nodes(of: rank, of: size)`.
  /// - Returns: the root, on every rank the same bits whatever the number of ranks; zeros of a tree without leaves.
  func sum<T: BinaryFloatingPoint>(_ own: [(node: SumTree.Node, value: [T])], count: Int, of tree: SumTree) throws -> [T]
  /// Adds the values of all ranks, each by itself: exact where at most one rank's is not zero.
  func sum(_ values: [Double]) throws -> [Double]
  /// The least of all ranks' values.
  func minimum(_ value: Int64) throws -> Int64
  /// Gives every rank the bytes of one.
  func broadcast(_ bytes: UnsafeMutableRawBufferPointer, from root: Int) throws
  /// Waits for all.
  func barrier() throws
  /// Takes leave at the end, when all others do.
  func leave()
  /// Ends all ranks with an exit code.
  func abort(_ code: Int32)
}

/// What a rank sent, and how long that took.
public struct Traffic: Equatable, Sendable {
  /// Bytes that this rank handed to the engine for others.
  public var bytes = 0
  /// Seconds in exchanges to which all had come.
  public var seconds = 0.0
  /// Seconds before them, until the last rank came.
  public var waiting = 0.0

  /// Nothing.
  public init() {}
}

/// The engine of several ranks fails: no library, a rank that is gone, a message that did not arrive.
public struct CollectiveError: Error, Equatable, Sendable, CustomStringConvertible {
  /// One sentence.
  public let description: String

  /// An error of this sentence.
  public init(_ description: String) { self.description = description }
}

extension Collective {
  /// Gives every rank the text of one.
  public func broadcast(_ text: String, from root: Int = 0) throws -> String {
    var bytes = Array(text.utf8)
    var count = [Int64(bytes.count)]
    try broadcast(&count, from: root)
    if rank != root { bytes = Array(repeating: 0, count: Int(count[0])) }
    try broadcast(&bytes, from: root)
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Gives every rank the numbers of one, as many as it has.
  public func broadcast<T: BitwiseCopyable>(_ numbers: inout [T], from root: Int = 0) throws {
    try numbers.withUnsafeMutableBytes { try broadcast($0, from: root) }
  }

  /// The text of every rank.
  public func texts(_ own: String) throws -> [String] { try (0..<size).map { try broadcast(own, from: $0) } }

  /// Whether it is so on any rank.
  public func any(_ isSo: Bool) throws -> Bool { try minimum(isSo ? 0 : 1) == 0 }
}

/// One process, alone.
public struct Solo: Collective {
  /// 0.
  public var rank: Int { 0 }
  /// 1.
  public var size: Int { 1 }
  /// Nothing.
  public var traffic: Traffic { Traffic() }

  /// The only one.
  public init() {}

  /// The root.
  public func sum<T: BinaryFloatingPoint>(_ own: [(node: SumTree.Node, value: [T])], count: Int, of tree: SumTree) -> [T] {
    var sums = TreeSums<[T]>()
    func add(_ a: inout [T], _ b: [T]) { for i in a.indices { a[i] += b[i] } }
    for (node, value) in own { sums.add(value, at: node, add) }
    return sums.root(add) ?? Array(repeating: 0, count: count)
  }

  /// The values.
  public func sum(_ values: [Double]) -> [Double] { values }
  /// The value.
  public func minimum(_ value: Int64) -> Int64 { value }
  /// Nobody is there to have them.
  public func broadcast(_ bytes: UnsafeMutableRawBufferPointer, from root: Int) {}
  /// Nobody is there to wait for.
  public func barrier() {}
  /// Nobody is there to leave.
  public func leave() {}
  /// Nobody is there to end.
  public func abort(_ code: Int32) {}
}
