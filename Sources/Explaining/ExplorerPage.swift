import CExplorer
import Checkpoints
import Platform
import Stepping
import Tensors
import Traces
import Training

/// A run of a model as one page for a browser: every tensor with its numbers, and of every number the terms that form it.
///
/// The page needs no server, no network and no other file. It has the run's tensors and the weights as float32, so the numbers are those
/// of a float32 trace to the bit; the terms of a number are formed in the page, of these numbers, by the formulas of ``/Traces/Provenances``.
/// What does not fit is left out in whole parts, which the page counts and names (``PagePart``).
public struct ExplorerPage: Sendable {
  /// What the run is of, beside its numbers.
  public struct Subject: Sendable {
    /// What the page is called.
    public var title: String
    /// What there is to know of the model and adapter, as names and values.
    public var facts: [(name: String, value: String)] = []
    /// A command that gives the page again.
    public var command = ""
    /// How a token reads; asked of every token of the vocabulary, until their texts have taken a tenth of the page.
    public var text: @Sendable (_ id: Int32) -> String
    /// Lines of the run that trained the adapter, if there is one.
    public var metrics: [Metrics] = []

    /// A run of the given name.
    public init(title: String, text: @escaping @Sendable (_ id: Int32) -> String) { (self.title, self.text) = (title, text) }
  }

  /// A part of the run that the page lacks, for want of room.
  public struct LeftOut: Equatable, Sendable {
    /// What.
    public let part: PagePart
    /// Of which layer; nil for what lies outside of layers.
    public let layer: Int?
    /// How many tensors.
    public let tensors: Int
    /// How many numbers they have.
    public let numbers: Int
  }

  /// The page.
  public let html: [UInt8]
  /// How many tensors and weights there are.
  public let tensors: Int
  /// What the page lacks.
  public let leftOut: [LeftOut]

  /// Refuses what is too little for a page of any run, which nobody needs to compute first.
  ///
  /// - Throws: ``PageTooSmall``.
  public static func check(limit: Int) throws {
    guard limit > PageText.size else { throw PageTooSmall(limit: limit, least: PageText.size) }
  }

  /// Makes the page of a run.
  ///
  /// - Parameters:
  ///   - layers: those that come before everything else, whole.
  ///   - limit: bytes that the page may have.
  /// - Throws: ``PageTooSmall`` if not even the list of tensors fits, and what the device reports when a weight is read.
  public init<B: Backend>(of run: RecordedRun<B>, _ subject: Subject, layers: [Int] = [], limit: Int) throws {
    var contents = PageContents(run)
    contents.nameVocabulary(subject, limit: limit / 10)
    let outline = PageText.page(run: contents.json(subject, [:], []).serialized(), numbers: []).count
    // Places are written where null stood, and what is left out is listed: at most so many characters a tensor.
    let room = limit - outline - 12 * contents.items.count - 4096
    guard room > 0 else { throw PageTooSmall(limit: limit, least: limit - room) }
    var numbers = PageNumbers()
    (contents.places, leftOut) = try contents.fill(&numbers, room: room, layers: layers)
    tensors = contents.items.count
    html = PageText.page(run: contents.json(subject, contents.places, leftOut).serialized(), numbers: numbers.text)
  }
}

/// A page that has no room for the list of its tensors.
public struct PageTooSmall: Error, CustomStringConvertible {
  /// Bytes that the page was to have.
  public let limit: Int
  /// Bytes that the page has without a single number.
  public let least: Int

  /// What is wrong, and what would be right.
  public var description: String { "found \(limit) bytes for a page; expected more than \(least), which it has without a single number" }
}

/// The page without its run.
enum PageText {
  private static func part(_ name: String) -> String {
    for n in 0..<page_part_count() {
      let part = page_part_at(n)
      if String(cString: part.name) == name {
        return String(decoding: UnsafeBufferPointer(start: part.bytes, count: part.size), as: UTF8.self)
      }
    }
    trap("\(name): no part of the page")
  }

  /// All scripts, in the order in which they run.
  private static var scripts: String {
    (0..<page_part_count()).map { String(cString: page_part_at($0).name) }.filter { $0.hasSuffix(".js") }.map(part).joined(separator: "\n")
  }

  /// Its bytes.
  static var size: Int { page(run: "", numbers: []).count }

  /// Text from files as the page has it, which cannot end the element that it stands in.
  static func escaped(_ text: String) -> String { text.replacing("<", with: "\\u003c") }

  /// Puts the pieces at their marks.
  static func page(run: String, numbers: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = []
    for piece in part("page.html").split(separator: "@@", omittingEmptySubsequences: false) {
      switch piece {
      case "style": bytes += part("style.css").utf8
      case "script": bytes += scripts.utf8
      case "run": bytes += escaped(run).utf8
      case "numbers": bytes += numbers
      default: bytes += piece.utf8
      }
    }
    return bytes
  }
}
