import Decoders
import Layers
import Tensors

/// Where the rows of a packed batch belong in a trace.
package struct TraceLayout<B: Backend> {
  /// An adapter with routers.
  package struct Owner {
    package let number: Int
    package let prefix: String
    package let mixture: AdapterConfiguration.Mixture
  }

  package let batch: TraceBatch
  package let owners: [Owner]
  /// The place b · T + t of every packed row.
  package let places: [Int]
  package let vocabulary: Int
  private let layers: Int
  private let packed: PackedBatch<B>
  private let isPlural: Bool

  package init(_ decoder: Decoder<B>, _ batch: TraceBatch, _ packed: PackedBatch<B>) {
    self.batch = batch
    self.packed = packed
    isPlural = decoder.adapters.count > 1
    let isPlural = isPlural
    owners = decoder.adapters.enumerated().compactMap { number, adapter in
      adapter.configuration.mixture.map { Owner(number: number, prefix: isPlural ? "adapter.\(number)." : "", mixture: $0) }
    }
    places = batch.places(packed.order)
    vocabulary = decoder.configuration.vocabulary
    layers = decoder.configuration.layers
  }

  /// The paths of an adapter's routers, layer by layer.
  package func gates(of owner: Owner) -> [String] { (0..<layers).map { "\(owner.prefix)model.layers.\($0).mlp.moe_gate" } }

  /// The adapter with routers that a path belongs to.
  package func owner(ofPath path: String) -> Owner? { isPlural ? owners.first { path.hasPrefix($0.prefix) } : owners.first }

  /// The places of an adapter's rows.
  package func places(of owner: Owner) -> ArraySlice<Int> { places[packed.rows(of: owner.number)] }

  /// The places of the rows of a value: an adapter's where its path says so, the base's own, or all.
  package func places(ofPath path: String, rows: Int) -> ArraySlice<Int> {
    let parts = path.split(separator: ".", maxSplits: 2)
    if parts[0] == "adapter", let number = Int(parts[1]) { return places[packed.rows(of: number)] }
    if parts[0] == "base" { return places[packed.baseRows] }
    return rows == places.count ? places[...] : places[packed.rows(of: 0)]  // what the only adapter owns
  }
}
