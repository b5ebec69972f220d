import Layers
import Tensors

/// A number that is put in the place of one that a run forms.
public struct Patch: Equatable, Sendable {
  /// The point, by its name in a trace.
  public let name: String
  /// The element: b, t and column; r and column of an expert's rows.
  public let index: [Int]
  /// The number.
  public let value: Double

  /// Another number for one element.
  public init(_ name: String, _ index: [Int], _ value: Double) { (self.name, self.index, self.value) = (name, index, value) }
}

/// Why a patch cannot be put in.
public struct PatchError: Error, CustomStringConvertible {
  /// What is wrong.
  public let description: String
}

/// Puts patches in as a run passes their points: everything after them follows, as with a ``Replacement`` of the whole value.
final class PatchHook<B: Backend>: Hook {
  private let patches: [String: [Patch]]
  private let paths: Set<String>
  private let layout: TraceLayout<B>
  private let backend: B

  init(_ patches: [Patch], _ layout: TraceLayout<B>, on backend: B) {
    self.patches = Dictionary(grouping: patches, by: \.name)
    paths = Set(
      patches.map { patch in
        let parts = patch.name.split(separator: ".", maxSplits: 3).map(String.init)
        if parts.count == 4, parts[0] == "adapter", parts[2] == "grad" { return "adapter.\(parts[1]).\(parts[3])" }
        return patch.name.hasPrefix("grad.") ? String(patch.name.dropFirst(5)) : patch.name
      })
    (self.layout, self.backend) = (layout, backend)
  }

  func listens(to path: String) -> Bool { paths.contains(path) }

  func visit(_ value: inout Tensor<B>, at point: HookPoint) throws {
    guard let wanted = patches[point.description] else { return }
    var values = try backend.download(value)
    let isExpert = point.path.contains(".experts.")
    for patch in wanted {
      let row = isExpert ? patch.index[0] : try packedRow(patch, layout.places(ofPath: point.path, rows: value.shape.rows))
      let column = patch.index[patch.index.count - 1]
      guard row < value.shape.rows, column < value.shape.columns else {
        throw PatchError(description: "\(patch.name) has \(value.shape) now: there is no \(patch.index)")
      }
      values[row * value.shape.columns + column] = B.Scalar(patch.value)
    }
    value = backend.upload(values, value.shape)
  }

  func visit(choice: inout Indices<B>, at point: HookPoint) throws {
    guard let wanted = patches[point.path], let owner = layout.owner(ofPath: point.path) else { return }
    var values = try backend.download(choice)
    let slots = owner.mixture.policy.slots(of: owner.mixture.experts)
    for patch in wanted {
      let row = try packedRow(patch, layout.places(of: owner))
      values[row * slots + patch.index[2]] = Int32(patch.value)
      let experts = values[row * slots..<(row + 1) * slots].filter { $0 >= 0 }
      guard Set(experts).count == experts.count else {
        throw PatchError(description: "\(patch.name): the token would have an expert twice, \(experts); patch the other slot first")
      }
    }
    choice = backend.upload(values)
  }

  /// The row of the packed batch that has a token.
  private func packedRow(_ patch: Patch, _ places: ArraySlice<Int>) throws -> Int {
    let place = patch.index[0] * layout.batch.columns + patch.index[1]
    guard let row = places.firstIndex(of: place) else {
      throw PatchError(description: "\(patch.name)\(patch.index): the tensor has no such token, which is padding or another's")
    }
    return row - places.startIndex
  }
}

extension TraceRecording {
  /// A hook that puts numbers in, for ``run(hooks:moments:update:to:)``.
  public func hook(patching patches: [Patch]) -> any Hook<B> { PatchHook(patches, layout, on: backend) }
}

extension Provenance {
  /// Whether a run passes it, so that it may be replaced and what comes after it follows; else it is a result, or another form of one.
  public var isPoint: Bool {
    switch formula {
    case .logits, .routerLogits, .loss, .balance, .lossCurve, .tokens, .matrixGradient, .biasGradient, .gainGradient,
      .embeddingGradient, .branchGradient, .moment, .update, .parts([]):
      false
    case .parts(let parts): if case .balance = parts[0].formula { false } else { true }
    default: true
    }
  }
}
