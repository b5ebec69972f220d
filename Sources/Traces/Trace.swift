import Decoders
import Layers
import Tensors

/// The named tensors of one run, row-major on the host, all of them at once: for models that are small.
///
/// What `mixlora trace` writes never is in memory as a whole; see ``TraceFile``.
public struct Trace<Scalar: BinaryFloatingPoint> {
  /// A tensor of the trace.
  public struct NamedTensor {
    /// Its name in the contract: `logits`, `grad.<name>` …
    public let name: String
    /// Its sizes, outermost first.
    public let shape: [Int]
    /// Its values.
    public let values: [Scalar]

    /// A tensor of the given name, shape and values.
    public init(name: String, shape: [Int], values: [Scalar]) {
      self.name = name
      self.shape = shape
      self.values = values
    }

    /// True if every value is a number.
    public var isFinite: Bool { values.allSatisfy(\.isFinite) }
  }

  /// In the order in which they were formed.
  public internal(set) var tensors: [NamedTensor] = []

  /// Runs the batch through the model and keeps what the contract names; see ``TraceRecording``.
  ///
  /// - Throws: what the device reports.
  public static func record<B: Backend>(
    _ decoder: Decoder<B>, _ batch: TraceBatch, _ request: TraceRequest, on backend: B, moments: TraceRecording<B>.Moments? = nil,
    update: (_ step: Int) -> Void
  ) throws -> Trace where B.Scalar == Scalar {
    var tensors: [String: NamedTensor] = [:]
    let summary = try TraceRecording(decoder, batch, request, on: backend).run(moments: moments, update: update) { tensors[$0.name] = $0 }
    var trace = Trace()
    trace.tensors = summary.order.compactMap { tensors[$0] }
    return trace
  }
}

/// What is asked of a trace beside the forward pass.
public struct TraceRequest {
  /// Whether gradients are written.
  public var backward = false
  /// Optimizer steps to make.
  public var steps = 0
  /// Which activations are written, by path, and which moments, by name; nil for none.
  public var activations: ((_ path: String) -> Bool)?
  /// Whether backward forms the blocks' caches again: less memory, the same bits.
  public var recomputes = false

  /// The forward pass alone.
  public init() {}

  var needsGradients: Bool { backward || steps > 0 }
}

/// What a trace was, without its tensors.
public struct TraceSummary: Sendable {
  /// The names of the tensors in the order of the run.
  public var order: [String] = []
  /// The first tensor in this order with a value that is not finite.
  public var firstNonFinite: String?
  /// Whether any activation that was asked for, its gradient, or a moment was among them.
  public var hasActivations = false
  /// `loss` and `aux_loss`, one an adapter; empty without labels.
  public var losses: [(name: String, values: [Double])] = []
}

extension Decoder {
  /// What is trained, with what its names begin with: nothing, or of several adapters `adapter.<number>.`.
  package var namedParts: [(part: TrainedPart<B>, prefix: String)] {
    (base.map { [($0, "")] } ?? []) + adapters.enumerated().map { ($1.trained, adapters.count > 1 ? "adapter.\($0)." : "") }
  }
}
