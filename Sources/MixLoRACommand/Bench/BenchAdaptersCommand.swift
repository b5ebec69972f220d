import ArgumentParser
import Checkpoints
import Platform

/// Compares adapters that are trained together with the same ones after each other.
struct BenchAdaptersCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "adapters",
    abstract: "Compare adapters that are trained together, over one base, with the same ones one after the other.",
    discussion: """
      Takes the options of `bench train` beside its own. Each measurement is a `bench train` in a process of its own, which has a peak of \
      memory of its own: in a round one of one adapter, then one of --count adapters together, each with a batch as large. Speed is \
      together over alone, a ratio of the two runs of a round. Memory of an adapter is the peak over the adapters; what it saves is \
      stated as a share of what sharing the base can save: (count - 1) / count of the base.

      Examples:
        mixlora bench adapters --model SmolLM2-135M
        mixlora bench adapters --count 4 --random-weights --model folder-with-config.json --rank 8 --steps 3 --json
      """)

  @Option(help: "Adapters that are trained together.")
  var count = 2
  @Option(help: "Rounds.")
  var rounds = 3
  @Flag(help: "Print one JSON object.")
  var json = false
  @Argument(parsing: .allUnrecognized, help: ArgumentHelp("Options of `bench train`.", valueName: "option"))
  var training: [String] = []

  func validate() throws {
    try requireRange(["--count": count], 2...1_000_000)
    try requireRange(["--rounds": rounds])
    let given: BenchTrainCommand
    do { given = try BenchTrainCommand.parse(training) } catch { throw ValidationError(BenchTrainCommand.message(for: error)) }
    if given.adapters.isGiven { throw ValidationError("--adapters is for `bench train`; here --count is how many are together.") }
    if given.profile.isAsked {
      throw ValidationError("--\(given.profile.phases ? "phases" : "profile") is for `bench train`; several of these run here.")
    }
  }

  func run() throws {
    var pairs: [(alone: Run, together: Run)] = []
    for _ in 0..<rounds { pairs.append((try train(1), try train(count))) }
    print(json ? Result(count: count, pairs: pairs).json : Result(count: count, pairs: pairs).text)
  }

  /// What a `bench train` of so many adapters says.
  private func train(_ adapters: Int) throws -> Run {
    guard let program = POSIX.programPath else { throw UsageError("bench adapters: the system does not say where this program is.") }
    let (output, code) = try POSIX.run(program, ["bench", "train"] + training + ["--adapters", "\(adapters)", "--json"])
    guard code == 0 else { throw ExitCode(code) }  // it said why
    return try Run(JSON(parsing: String(decoding: output, as: UTF8.self), file: "bench train"))
  }

  struct Run {
    let tokensPerSecond: Double
    let peak, base: Int

    /// Reads what `bench train` prints.
    ///
    /// - Throws: `CheckpointError` naming a number that is not there, or that nothing can be divided by.
    init(_ found: JSON) throws {
      func number(_ key: String) throws -> Double {
        guard let number = found[key]?.doubleValue, number > 0, number.isFinite else {
          throw CheckpointError(
            file: "bench train", place: .key(key), found: found[key]?.serialized() ?? "nothing", expected: "a number > 0")
        }
        return number
      }
      tokensPerSecond = try number("tokens_per_second")
      (peak, base) = try (Int(number("peak_resident_bytes")), Int(number("base_bytes")))
    }
  }

  struct Result {
    let count: Int
    let alone, together, speedup: Spread
    let peakAlone, peakTogether, base: Int

    init(count: Int, pairs: [(alone: Run, together: Run)]) {
      self.count = count
      alone = Spread(pairs.map(\.alone.tokensPerSecond))
      together = Spread(pairs.map(\.together.tokensPerSecond))
      speedup = Spread(pairs.map { $0.together.tokensPerSecond / $0.alone.tokensPerSecond })
      func median(_ bytes: [Int]) -> Int { Int(Spread(bytes.map(Double.init)).median) }
      (peakAlone, peakTogether) = (median(pairs.map(\.alone.peak)), median(pairs.map(\.together.peak)))
      base = median(pairs.map(\.alone.base))
    }

    /// Bytes that an adapter does not need because others share its base.
    var saved: Int { peakAlone - peakTogether / count }
    /// The same as a share of what sharing can save.
    var savedShare: Double { Double(saved * count) / Double(base * (count - 1)) }

    var json: String {
      var object = JSON.Object()
      object["adapters"] = JSON(count)
      object.add("tokens_per_second_alone", alone)
      object.add("tokens_per_second_together", together)
      object.add("speedup", speedup)
      object["peak_resident_bytes_alone"] = JSON(peakAlone)
      object["peak_resident_bytes_together"] = JSON(peakTogether)
      object["base_bytes"] = JSON(base)
      object["saved_bytes_per_adapter"] = JSON(saved)
      object["saved_share_of_base"] = JSON(savedShare)
      return JSON.object(object).serialized()
    }

    var text: String {
      func gibibytes(_ bytes: Int) -> String { "\(fixed(Double(bytes) / 1_073_741_824, 3)) GiB" }
      return """
        alone     \(fixed(alone.median, 1)) tokens/s (\(alone.range(1)))   \(gibibytes(peakAlone)) peak, \(gibibytes(base)) of them the base
        together  \(fixed(together.median, 1)) tokens/s (\(together.range(1)))   \(gibibytes(peakTogether)) peak, \(gibibytes(peakTogether / count)) an adapter
        speed     \(fixed(speedup.median, 3)) times one after the other (\(speedup.range(3)))
        memory    \(gibibytes(saved)) less an adapter: \(fixed(100 * Double(saved) / Double(peakAlone), 1)) %, \(fixed(savedShare, 2)) of what sharing the base can save
        """
    }
  }
}
