import CPUBackend
import Checkpoints
import Foundation
import Testing
import Training

/// The files of a run: metrics, checkpoints, pictures.
@Suite struct RunFileTests {
  private func line(_ step: Int) -> Metrics {
    Metrics(
      step: step, loss: 1 / Double(step), auxLoss: 0.01, learningRate: 1e-4, gradientNorm: 2, tokens: 10 * step, tokensPerSecond: 100,
      expertLoad: [[0.25, 0.75]], validationLoss: step == 2 ? 0.5 : nil)
  }

  @Test func metricsAreReadUpToAStepWithoutHalfALine() throws {
    let place = try TrainingCase()
    let path = place.folder + "/metrics.jsonl"
    let file = try MetricsFile(path, [line(1)])
    for step in 2...4 { try file.append(line(step)) }
    try file.synchronize()
    let handle = try FileHandle(forWritingTo: URL(filePath: path))
    try handle.seekToEnd()
    try handle.write(contentsOf: Data(#"{"step": 5, "los"#.utf8))
    try handle.close()
    #expect(try MetricsFile.lines(path, upTo: 4) == (1...4).map(line))
    #expect(try MetricsFile.lines(path, upTo: 2) == (1...2).map(line))
    #expect(try MetricsFile.lines(path, upTo: 0).isEmpty)
    let error = try #require(throws: CheckpointError.self) { try MetricsFile.lines(path, upTo: 5) }
    #expect(error.found.contains("lines of 4 steps"))
  }

  @Test func pruningKeepsTheNewestAndTheSparedAndRemovesWhatIsHalfWritten() throws {
    let place = try TrainingCase()
    for step in [1, 2, 3, 4] {
      let path = TrainingCheckpoint.path(place.out, step: step)
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
      try AtomicFile.write(#"{"step": \#(step), "settings": {"threads": 3}}"#, to: path + "/state.json")
    }
    try FileManager.default.createDirectory(atPath: place.out + "/.checkpoint-5.partial-1", withIntermediateDirectories: true)
    try FileManager.default.createDirectory(atPath: place.out + "/checkpoint-9", withIntermediateDirectories: true)
    #expect(TrainingCheckpoint.steps(in: place.out) == [1, 2, 3, 4], "a folder without a state is no checkpoint")
    #expect(TrainingCheckpoint.threads(ofRunIn: place.out) == 3)
    TrainingCheckpoint.prune(place.out, keep: 2, sparing: [1])
    #expect(place.names(place.out) == ["checkpoint-1", "checkpoint-3", "checkpoint-4", "checkpoint-9"])
    #expect(TrainingCheckpoint.threads(ofRunIn: place.folder) == nil)
  }

  @Test func aCheckpointOfOtherTensorsIsRefused() throws {
    let place = try TrainingCase()
    let run = try place.run(place.recipe, out: place.out, stopAfter: 3)
    // Whole, but of another run: no digest can tell.
    var other = place.recipe
    other.rank = 4
    try place.run(other, out: place.folder + "/other", stopAfter: 3)
    var optimizer: (any Optimizer<CPUFloat>)? = AdamW(run.decoder.parameters, learningRate: 1, on: CPUFloat(threads: 1))
    #expect(throws: CheckpointError.self) {
      try TrainingCheckpoint.restore(
        run.decoder, run.learners[0], &optimizer, from: place.folder + "/other", step: 3, on: CPUFloat(threads: 1))
    }
  }

  @Test func picturesSayWhatWasMeasured() {
    let metrics = (1...4).map(line)
    let loss = Charts.loss(metrics)
    #expect(
      loss.hasPrefix("<svg") && loss.hasSuffix("</svg>\n") && loss.contains("cross-entropy of 4 steps") && loss.contains("validation"))
    let experts = Charts.experts(metrics)
    #expect(experts.contains(">25%<") && experts.contains(">75%<") && experts.contains("uniform: 50%"))
    var empty = line(1)
    (empty.loss, empty.expertLoad) = (.nan, nil)
    #expect(Charts.loss([empty]).contains("no finite loss") && Charts.experts([empty]).contains("no router"))
  }
}
