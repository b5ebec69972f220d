import Collectives
import Foundation
import Platform
import Synchronization

/// Ranks that are threads of this process: what `MPI` does among processes, said in the plainest way.
struct ThreadRanks: Collective {
  let rank: Int
  let size: Int
  var traffic: Traffic { Traffic() }
  private let table: Table

  /// Where all put something down and take everybody's up.
  private final class Table: @unchecked Sendable {
    private let condition = NSCondition()
    private let size: Int
    private var own: [Int: Any] = [:]
    private var all: [Any] = []
    private var round = 0
    private var isLeft = false

    init(_ size: Int) { self.size = size }

    func gather<T>(_ value: T, of rank: Int) throws -> [T] {
      condition.lock()
      defer { condition.unlock() }
      own[rank] = value
      if own.count == size {
        (all, own, round) = ((0..<size).compactMap { own[$0] }, [:], round + 1)
        condition.broadcast()
      }
      let mine = own.isEmpty ? round - 1 : round
      while round == mine, !isLeft { condition.wait() }
      guard round > mine, let all = all as? [T] else { throw CollectiveError("rank \(rank) is left alone, or others do something else") }
      return all
    }

    func leave() {
      condition.lock()
      isLeft = true
      condition.broadcast()
      condition.unlock()
    }
  }

  /// What each of so many ranks makes.
  static func run<Outcome: Sendable>(_ size: Int, _ body: @escaping @Sendable (any Collective) throws -> Outcome) -> [Result<
    Outcome, any Error
  >] {
    let table = Table(size)
    let outcomes = Mutex<[Int: Result<Outcome, any Error>]>([:])
    let threads = (0..<size).map { rank in
      Thread {
        let outcome = Result { try body(ThreadRanks(rank: rank, size: size, table: table)) }
        if case .failure = outcome { table.leave() }
        outcomes.withLock { $0[rank] = outcome }
      }
    }
    for thread in threads { thread.join() }
    return outcomes.withLock { outcomes in (0..<size).compactMap { outcomes[$0] } }
  }

  func sum<T: BinaryFloatingPoint>(_ own: [(node: SumTree.Node, value: [T])], count: Int, of tree: SumTree) throws -> [T] {
    try Solo().sum(table.gather(own, of: rank).flatMap { $0 }, count: count, of: tree)
  }

  func sum(_ values: [Double]) throws -> [Double] {
    let all = try table.gather(values, of: rank)
    return values.indices.map { i in all.reduce(0) { $0 + $1[i] } }
  }

  func minimum(_ value: Int64) throws -> Int64 { try table.gather(value, of: rank).min() ?? value }

  func broadcast(_ bytes: UnsafeMutableRawBufferPointer, from root: Int) throws {
    bytes.copyBytes(from: try table.gather(Array(bytes), of: rank)[root])
  }

  func barrier() throws { _ = try minimum(0) }
  func leave() {}
  func abort(_ code: Int32) { table.leave() }
}
