import Collectives
import Decoders
import Layers
import Tensors

/// What a rank must know of a step of which it computes a part.
public struct WholeStep: Sendable {
  /// All micro-batches, in the order in which they are added.
  public let tree: SumTree
  /// The number of the rank's first one.
  public let first: Int
  /// Each adapter's labels and tokens in all of them.
  public let totals: [StepTotals]

  /// A step of so many micro-batches, of which the rank computes those from `first` on.
  public init(microBatches: Int, first: Int, totals: [StepTotals]) {
    (tree, self.first, self.totals) = (SumTree(leaves: microBatches), first, totals)
  }

  /// A step that is computed by one rank.
  init<B: Backend>(of batches: [PackedBatch<B>], adapters: Int) {
    self.init(microBatches: batches.count, first: 0, totals: StepTotals.of(batches, adapters: adapters))
  }
}

/// What micro-batches come to for an adapter.
struct OwnLosses<B: Backend> {
  var loss: Tensor<B>
  var balance: Tensor<B>?
  var counts: [Tensor<B>] = []

  var tensors: [Tensor<B>] { [loss] + (balance.map { [$0] } ?? []) + counts }
}

/// A sum over micro-batches.
struct StepSum<B: Backend> {
  /// One an adapter, or one of the base.
  var losses: [OwnLosses<B>]
  /// One an arena, in the order of the decoder's trained parts.
  var gradients: [Tensor<B>] = []
}

extension TrainingStep {
  /// Adds `b` to `a`.
  func add(_ a: inout StepSum<B>, _ b: StepSum<B>) {
    for i in a.gradients.indices { backend.add(1, b.gradients[i], into: &a.gradients[i]) }
    for (i, other) in b.losses.enumerated() {
      backend.add(1, other.loss, into: &a.losses[i].loss)
      if let balance = other.balance { backend.add(balance, into: &a.losses[i].balance) }
      if a.losses[i].counts.isEmpty {  // no row of this adapter
        a.losses[i].counts = other.counts
      } else {
        for (layer, counts) in other.counts.enumerated() { backend.add(1, counts, into: &a.losses[i].counts[layer]) }
      }
    }
  }

  /// The sum of what all ranks hand on; the gradients of one arena after the other pass through the host.
  func exchanged(_ own: [(node: SumTree.Node, value: StepSum<B>)], of tree: SumTree) throws -> StepSum<B> {
    var sum = StepSum<B>(losses: [])
    for (i, part) in decoder.trained.enumerated() {
      let values = try own.map { ($0.node, try backend.download($0.value.gradients[i])) }
      sum.gradients.append(backend.upload(try ranks.sum(values, count: part.arena.shape.count, of: tree), part.arena.shape))
    }
    let figures = keys.indices.map { self.figures(of: $0) }
    let counts = figures.map { $0.reduce(0, +) }
    let values = try own.map { node, value in
      let parts = try zip(value.losses, counts).map { losses, count in
        let found = try backend.download(losses.tensors).flatMap { $0 }
        guard found.count == count || losses.balance == nil else { trap("\(found.count) figures of a micro-batch, expected \(count)") }
        return found + Array(repeating: 0, count: count - found.count)  // no row of this adapter
      }
      return (node: node, value: parts.flatMap { $0 })
    }
    let count = counts.reduce(0, +)
    let all = backend.upload(try ranks.sum(values, count: count, of: tree), Shape(count))
    var end = 0
    func next(_ count: Int) -> Tensor<B> {
      end += count
      return all.columns(end - count..<end)
    }
    for own in figures {
      let parts = own.map { next($0) }
      sum.losses.append(OwnLosses(loss: parts[0], balance: parts.count > 1 ? parts[1] : nil, counts: Array(parts.dropFirst(2))))
    }
    return sum
  }

  /// How many numbers each of an adapter's figures has: the loss and, with routers, the balance loss and every router's rows by expert.
  func figures(of owner: Int) -> [Int] {
    let experts = trained(by: owner).flatMap(\.parameters).filter { $0.role == .router }.map(\.shape.rows)
    return experts.isEmpty ? [1] : [1, 1] + experts
  }
}
