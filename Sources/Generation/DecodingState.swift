import Decoders
import Layers
import Tensors

/// Sequences that grow token by token: every layer keeps their keys and values, so that only new tokens are computed.
///
///     logits(after: prompts)      one pass over all prompts, packed
///     logits(after: tokens)       one row a sequence, as often as there are tokens
///
/// A sequence without new tokens rests: it takes no part in the pass.
public final class DecodingState<B: Backend> {
  /// The tokens of each sequence that are in the caches.
  public private(set) var ids: [[Int32]]
  private let decoder: Decoder<B>
  private let adapters: [Int]  // of each sequence
  private let backend: B
  private let caches: [KeyValueCache<B>]
  private var slots: CacheSlots

  /// So many empty sequences under each adapter, one adapter's after the other's; without an adapter, of the base.
  public init(_ decoder: Decoder<B>, sequences: Int, on backend: B) {
    self.decoder = decoder
    self.backend = backend
    adapters = (0..<max(1, decoder.adapters.count)).flatMap { [Int](repeating: $0, count: sequences) }
    ids = adapters.map { _ in [] }
    caches = (0..<decoder.configuration.layers).map { _ in KeyValueCache() }
    slots = CacheSlots(sequences: ids.count)
  }

  /// Adds tokens to each sequence and gives the logits (V) behind the last one, nil where nothing was added.
  ///
  /// - Parameter new: the tokens that follow those in `ids`, sequence by sequence.
  /// - Precondition: there is a list for every sequence; an empty one lets it rest.
  /// - Throws: what the device reports, and what a hook of the run threw.
  /// - Complexity: one forward pass over the new tokens, and the head for one row a sequence. Of it only the logits come to the host.
  public func logits(after new: [[Int32]], _ run: Run<B>) throws -> [[B.Scalar]?] {
    guard new.count == ids.count else { trap("DecodingState: tokens for \(new.count) sequences, expected \(ids.count)") }
    slots.reserve(new.map(\.count))
    let batch = PackedBatch(
      new.indices.map { s in
        PackedSequence(
          ids: new[s], firstPosition: ids[s].count, labels: [Int32?](repeating: nil, count: new[s].count), adapter: adapters[s])
      },
      joining: slots, on: backend)
    let hidden = decoder.forward(batch, run, earlier: caches)  // (N,C)
    slots.add(new.map(\.count))
    for (s, tokens) in new.enumerated() { ids[s] += tokens }
    let growing = new.indices.filter { !new[$0].isEmpty }
    let lastRows = backend.upload(growing.map { Int32(batch.plan.offsets[$0 + 1] - 1) })
    let values = try backend.download(decoder.logits(backend.gather(hidden, rows: lastRows), run))  // (n,V)
    try run.finish()
    let v = decoder.configuration.vocabulary
    var result = [[B.Scalar]?](repeating: nil, count: new.count)
    for (n, s) in growing.enumerated() { result[s] = Array(values[n * v..<(n + 1) * v]) }
    return result
  }

  /// Forgets the tokens of a sequence from `length` on; nothing is moved.
  public func truncate(_ sequence: Int, to length: Int) {
    guard length < ids[sequence].count else { return }
    ids[sequence].removeSubrange(length...)
    slots.truncate(sequence, to: length)
  }

  /// Goes back to the beginning that a sequence shares with `tokens`, and returns those that it then lacks: at least the last one, so
  /// that there are logits behind it.
  ///
  /// - Precondition: there are tokens.
  public func rewind(_ sequence: Int, toBecome tokens: [Int32]) -> [Int32] {
    let shared = zip(ids[sequence], tokens).prefix { $0 == $1 }.count
    truncate(sequence, to: min(shared, tokens.count - 1))
    return Array(tokens[ids[sequence].count...])
  }
}
