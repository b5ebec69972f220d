import Checkpoints

/// One line of `metrics.jsonl`.
public struct Metrics: Equatable, Sendable {
  /// The adapter that made the step, where a run has several.
  public var adapter: String?
  /// The step, counted from 1.
  public var step: Int
  /// Cross-entropy alone.
  public var loss: Double
  /// Balance loss, coefficient applied.
  public var auxLoss: Double
  /// Learning rate as used.
  public var learningRate: Double
  /// Norm of the gradient before clipping.
  public var gradientNorm: Double
  /// Real tokens of the step.
  public var tokens: Int
  /// Tokens a second.
  public var tokensPerSecond: Double
  /// Shares of the slots, layer by layer; nil without a router.
  public var expertLoad: [[Double]]?
  /// Cross-entropy on the validation data, where it was due.
  public var validationLoss: Double?

  /// The line's JSON object.
  public var json: JSON {
    let object: JSON = [
      "step": JSON(step), "loss": JSON(loss), "aux_loss": JSON(auxLoss), "lr": JSON(learningRate), "grad_norm": JSON(gradientNorm),
      "tokens": JSON(tokens), "tokens_per_second": JSON(tokensPerSecond),
      "expert_load": expertLoad.map { .array($0.map { .array($0.map { JSON($0) }) }) } ?? .null,
    ]
    guard var members = object.objectValue else { return object }
    if let adapter { members["adapter"] = JSON(adapter) }
    if let validationLoss { members["validation_loss"] = JSON(validationLoss) }
    return .object(members)
  }

  /// Reads a line; nil if it is not one (the last line of a run that was killed while it wrote).
  init?(_ line: [UInt8], file: String) {
    guard let json = try? JSON(parsing: line, file: file), let step = json["step"]?.intValue, let loss = json["loss"]?.doubleValue,
      let tokens = json["tokens"]?.intValue
    else { return nil }
    self.step = step
    self.loss = loss
    self.tokens = tokens
    adapter = json["adapter"]?.stringValue
    auxLoss = json["aux_loss"]?.doubleValue ?? .nan
    learningRate = json["lr"]?.doubleValue ?? .nan
    gradientNorm = json["grad_norm"]?.doubleValue ?? .nan
    tokensPerSecond = json["tokens_per_second"]?.doubleValue ?? .nan
    expertLoad = json["expert_load"]?.arrayValue?.map { $0.arrayValue?.map { $0.doubleValue ?? .nan } ?? [] }
    validationLoss = json["validation_loss"]?.doubleValue
  }

  /// A line of the given numbers.
  public init(
    step: Int, loss: Double, auxLoss: Double, learningRate: Double, gradientNorm: Double, tokens: Int, tokensPerSecond: Double,
    expertLoad: [[Double]]?, validationLoss: Double? = nil
  ) {
    self.step = step
    self.loss = loss
    self.auxLoss = auxLoss
    self.learningRate = learningRate
    self.gradientNorm = gradientNorm
    self.tokens = tokens
    self.tokensPerSecond = tokensPerSecond
    self.expertLoad = expertLoad
    self.validationLoss = validationLoss
  }
}

/// `metrics.jsonl` of a run: a line a step, appended as the run goes.
public struct MetricsFile {
  private let path: String

  /// All lines of the file that is there, but for half a line at its end.
  ///
  /// - Throws: `CheckpointError` if the file cannot be read.
  public static func lines(_ path: String) throws -> [Metrics] {
    let file = try MappedFile(path: path)
    return try file.bytes(in: 0..<file.size).split(separator: UInt8(ascii: "\n")).compactMap { Metrics(Array($0), file: path) }
  }

  /// The lines of the file that is there up to a step; later ones, and half a line, are left out.
  ///
  /// - Throws: `CheckpointError` if the file cannot be read, or lacks the line of a step.
  public static func lines(_ path: String, upTo step: Int) throws -> [Metrics] {
    let kept = step > 0 ? try lines(path).filter { $0.step <= step } : []
    guard kept.map(\.step).elementsEqual(Array(1..<step + 1)) else {
      throw CheckpointError(
        file: path, found: "lines of \(kept.count) steps up to step \(step)", expected: "a line for each step from 1 to \(step), in order")
    }
    return kept
  }

  /// Begins a file with the given lines, in place of the one that may be there.
  ///
  /// - Throws: `CheckpointError` if it cannot be written.
  public init(_ path: String, _ lines: [Metrics]) throws {
    self.path = path
    try AtomicFile.write(lines.map { $0.json.serialized() + "\n" }.joined(), to: path)
  }

  /// Adds a line.
  ///
  /// - Throws: `CheckpointError` if the file cannot be written.
  public func append(_ metrics: Metrics) throws { try AppendedFile.append(metrics.json.serialized() + "\n", to: path) }

  /// Waits until all lines are on the disk: before a checkpoint, which goes on from them.
  ///
  /// - Throws: `CheckpointError` if the system fails.
  public func synchronize() throws { try AtomicFile.flush(path) }
}
