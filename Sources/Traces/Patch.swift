import Layers
import Tensors

/// A number that is put in the place of one that a run forms.
public struct Patch: Equatable, Sendable {
  /// The point, by its name in a trace.
  public let name: String
  /// The element: b, t and column of a value of tokens; of an expert's rows and of parameters one number an axis.
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
    paths = Set(patches.map { HookPoint(named: $0.name).path })
    (self.layout, self.backend) = (layout, backend)
  }

  func listens(to path: String) -> Bool { paths.contains(path) }

  func visit(_ value: inout Tensor<B>, at point: HookPoint) throws {
    guard let wanted = patches[point.description] else { return }
    var values = try backend.download(value)
    for patch in wanted {
      let column = patch.index[patch.index.count - 1]
      let row =
        switch patch.index.count {
        case 1: 0
        case 2: patch.index[0]
        default: try packedRow(patch, layout.places(ofPath: point.path, rows: value.shape.rows))
        }
      guard row < value.shape.rows, column < value.shape.columns else {
        throw PatchError(description: "\(patch.name) has \(value.shape) now: there is no \(patch.index)")
      }
      guard B.Scalar(patch.value).isFinite else {
        throw PatchError(description: "found \(patch.value) for \(patch.name), which \(B.Scalar.self) has not; expected a finite number")
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
  /// A hook that puts numbers in, for ``run(hooks:laterHooks:moments:update:to:)``.
  public func hook(patching patches: [Patch]) -> any Hook<B> { PatchHook(patches, layout, on: backend) }
}

extension Provenance {
  /// Whether a run passes it on its way forward or back; else it is a result, or another form of one.
  public var isPoint: Bool {
    switch formula {
    case .logits, .routerLogits, .loss, .balance, .lossCurve, .tokens, .matrixGradient, .biasGradient, .gainGradient,
      .embeddingGradient, .branchGradient, .moment, .update, .parts([]):
      false
    case .parts(let parts): if case .balance = parts[0].formula { false } else { true }
    default: true
    }
  }

  /// Why no number of it can be replaced, and what can be; nil where one can: at a point, and in a parameter's gradient, from which a step
  /// of the optimizer follows.
  public var obstacle: String? {
    switch formula {
    case .matrixGradient, .biasGradient, .gainGradient, .embeddingGradient, .branchGradient: nil
    case .logits(let z, _): "it is another form of \(z); patch that"
    case .routerLogits: "it is a list of the routers' logits; patch those"
    case .tokens(let choice, _): "it follows from \(choice) alone; patch that"
    case .moment(_, let gradient): "AdamW forms moments and values in one operation; patch \(gradient), of which they are formed"
    case .update, .lossCurve: "it is a last result, of which nothing is formed"
    default: isPoint ? nil : "gradients are those of the loss, whatever its value is, so nothing would follow; patch what it is formed of"
    }
  }
}
