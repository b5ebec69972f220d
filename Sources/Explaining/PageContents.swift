import Checkpoints
import Layers
import Platform
import Stepping
import Tensors
import Traces
import Training

/// What a page may have to leave out, in the order in which it is put in.
public enum PagePart: String, CaseIterable, Sendable {
  /// What routers give, choose and weigh, of all layers.
  case routing
  /// What lies outside of layers, forward and backward.
  case ends = "values outside of layers"
  /// What has a number for every token of the vocabulary, forward and backward.
  case logits
  /// A layer's values and their gradients.
  case values = "values and their gradients"
  /// The adapter, or what else is trained.
  case trained = "trained weights"
  /// The gradients of what is trained.
  case gradients = "gradients of trained weights"
  /// Weights that are not trained and have a row for every token of the vocabulary.
  case tables = "embedding and head"
  /// Other weights that are not trained.
  case frozen = "frozen weights"
  /// Moments, and values after a step.
  case optimizer = "moments and values after a step"
}

/// What is put in as a whole or not at all: a part of one layer, or of what lies outside of layers.
private struct PageGroup: Hashable {
  let part: PagePart
  let layer: Int?
}

/// The tensors and weights of a run, and what a page says of them.
struct PageContents<B: Backend> {
  /// A tensor of the run, or a weight.
  struct Item {
    let name: String
    let shape: [Int]
    /// Nil for a weight.
    let provenance: Provenance?
    let part: PagePart
    let layer: Int?

    var count: Int { shape.reduce(1, *) }
  }

  let run: RecordedRun<B>
  /// The tensors in the order of the run, then the weights.
  let items: [Item]
  /// Where the numbers begin of what the page has, by names; a weight's and its tensor's names differ.
  var places: [String: Int] = [:]
  private let weights: [String]
  /// How every token of the vocabulary reads; nil where the page names only those that the batch meets.
  private var vocabularyNames: JSON.Object?

  init(_ run: RecordedRun<B>) {
    self.run = run
    var seen: Set<String> = []
    let tensors = run.names.compactMap { name in run.provenance(of: name).map { (name, $0) } }
    var read: [String] = []
    for (_, provenance) in tensors {
      for input in provenance.inputs {
        if case .weight(let name) = input.source, seen.insert(name).inserted { read.append(name) }
      }
    }
    weights = read
    let (names, vocabulary) = (Set(run.names), run.shape(of: "logits")?.last)
    items =
      tensors.map { name, provenance in
        let shape = run.shape(of: name) ?? []
        let part = Self.part(provenance)
        return Item(
          name: name, shape: shape, provenance: provenance, part: part == .ends && shape.last == vocabulary ? .logits : part,
          layer: Self.layer(name))
      }
      + read.map { name in
        let shape = run.weightShape(name) ?? []
        let part = shape.count == 2 && shape[0] == vocabulary ? PagePart.tables : .frozen
        return Item(
          name: name, shape: shape, provenance: nil, part: names.contains("grad." + name) ? .trained : part, layer: Self.layer(name))
      }
  }

  private static func part(_ tensor: Provenance) -> PagePart {
    if tensor.phase == .optimizer, tensor.operation == .optimizer { return .optimizer }
    if tensor.phase == .backward, !tensor.isPoint { return .gradients }
    if tensor.name.contains(".moe_gate") || tensor.operation == .tokens { return .routing }
    return layer(tensor.name) == nil ? .ends : .values
  }

  private static func layer(_ name: String) -> Int? {
    let parts = name.split(separator: ".")
    return parts.firstIndex(of: "layers").flatMap { $0 + 1 < parts.count ? Int(parts[$0 + 1]) : nil }
  }

  // MARK: Numbers

  /// Puts in what there is room for: part after part, of each the layers one by one, each as a whole or not at all. Layers that are
  /// asked for come before all that, with all of their parts.
  func fill(
    _ numbers: inout PageNumbers, room: Int, layers wanted: [Int]
  ) throws -> (places: [String: Int], leftOut: [ExplorerPage.LeftOut]) {
    let groups = Dictionary(grouping: items) { PageGroup(part: $0.part, layer: $0.layer) }
    let all = Set(items.compactMap(\.layer)).sorted()
    var layers: [Int?] = [nil]
    for layer in [all.first, all.last].compactMap({ $0 }) + all where !layers.contains(layer) { layers.append(layer) }
    var order = wanted.flatMap { layer in PagePart.allCases.map { PageGroup(part: $0, layer: layer) } }
    order += PagePart.allCases.flatMap { part in layers.map { PageGroup(part: part, layer: $0) } }
    var places: [String: Int] = [:]
    var leftOut: [ExplorerPage.LeftOut] = []
    var seen: Set<PageGroup> = []
    for key in order where seen.insert(key).inserted {
      guard let group = groups[key] else { continue }
      if let new = try put(group, into: &numbers, room: room) {
        places.merge(new) { $1 }
      } else {
        leftOut.append(.init(part: key.part, layer: key.layer, tensors: group.count, numbers: group.reduce(0) { $0 + $1.count }))
      }
    }
    return (places, leftOut)
  }

  /// Puts in a group; nil, and nothing is put in, if there is no room for it.
  private func put(_ group: [Item], into numbers: inout PageNumbers, room: Int) throws -> [String: Int]? {
    let before = numbers.text.count
    var places: [String: Int] = [:]
    for item in group {
      // A large tensor is not read in vain. One with the bits of another would take no room, but so large a one has none.
      if PageNumbers.characters(item.count) <= room { places[item.name] = numbers.append(try values(of: item)) }
      guard places[item.name] != nil, numbers.text.count <= room else {
        numbers.cut(to: before)
        return nil
      }
    }
    return places
  }

  private func values(of item: Item) throws -> [Float] {
    if item.provenance != nil { return run.values(of: item.name).map { Float($0) } }
    if item.shape.count == 1 { return try run.weightRow(item.name, 0).map { Float($0) } }
    return try (0..<item.shape[0]).flatMap { try run.weightRow(item.name, $0).map { Float($0) } }
  }

  // MARK: What is said

  /// Gives every token of the vocabulary its text, so that a logit and a row of the embedding can say whose they are; if all of them
  /// take at most so many bytes.
  mutating func nameVocabulary(_ subject: ExplorerPage.Subject, limit: Int) {
    var (names, size) = (JSON.Object(), 0)
    for id in 0..<(run.shape(of: "logits")?.last ?? 0) {
      let text = JSON(presentable(subject.text(Int32(id))))
      size += PageText.escaped(text.serialized()).utf8.count + "\"\(id)\":,".utf8.count
      guard size <= limit else { return }
      names["\(id)"] = text
    }
    vocabularyNames = names
  }

  /// The page's description of the run.
  func json(_ subject: ExplorerPage.Subject, _ places: [String: Int], _ leftOut: [ExplorerPage.LeftOut]) -> JSON {
    let tensors = items.filter { $0.provenance != nil }
    var formulas = PageFormulas(points: tensors.map(\.name), weights: weights)
    var texts = PageTexts()
    let points = tensors.map { item in
      guard let provenance = item.provenance else { return JSON.null }
      let inputs = provenance.inputs.flatMap { input -> [JSON] in
        switch input.source {
        case .point(let name): [JSON(input.letter), formulas.points[name].map { JSON($0) } ?? .null]
        case .weight(let name): [JSON(input.letter), formulas.weights[name].map { JSON(-1 - $0) } ?? .null]
        case .batch(let name): [JSON(input.letter), JSON(name)]
        }
      }
      return [
        JSON(item.name), sizes(item.shape), JSON(Provenance.Phase.allCases.firstIndex(of: provenance.phase) ?? 0),
        JSON(texts.number(of: provenance.operation.rawValue)), JSON(texts.number(of: provenance.equation)), owner(provenance.rows),
        formulas.json(provenance.formula), .array(inputs), place(item, places),
      ] as JSON
    }
    let read = items.filter { $0.provenance == nil }.map { [JSON($0.name), sizes($0.shape), place($0, places)] as JSON }
    return [
      "title": JSON(subject.title), "command": JSON(subject.command),
      "facts": .array(subject.facts.map { [JSON($0.name), JSON($0.value)] }),
      "batch": batch(subject), "optimizer": optimizer, "turns": turns, "texts": .array(texts.all.map { JSON($0) }),
      "points": .array(points), "weights": .array(read), "gates": .array(formulas.gates),
      "training": TrainingCurve(subject.metrics).json,
      "left": .array(
        leftOut.map { [JSON($0.part.rawValue), $0.layer.map { JSON($0) } ?? .null, JSON($0.tensors), JSON($0.numbers)] }),
    ]
  }

  private func sizes(_ shape: [Int]) -> JSON { .array(shape.map { JSON($0) }) }
  private func place(_ item: Item, _ places: [String: Int]) -> JSON { places[item.name].map { JSON($0) } ?? .null }

  /// Whose tokens a tensor has: null for all, −1 for the base alone, else the adapter.
  private func owner(_ rows: Provenance.Rows) -> JSON {
    switch rows {
    case .all: .null
    case .base: -1
    case .adapter(let number): JSON(number)
    }
  }

  private var optimizer: JSON {
    let numbers = run.optimizer
    return [JSON(numbers.learningRate), JSON(numbers.weightDecay), JSON(numbers.beta1), JSON(numbers.beta2), JSON(numbers.epsilon)]
  }

  /// cos and sin of every rotary plane at every position of the batch.
  private var turns: JSON {
    let width = items.lazy.compactMap { item -> Int? in
      if case .rotary(_, let width)? = item.provenance?.formula { width } else { nil }
    }.first
    return .array(
      (0..<run.batch.columns).map { position in
        .array(
          (0..<(width ?? 0) / 2).map { plane in
            let turn = run.turn(plane: plane, position: position)
            return [JSON(turn.cos), JSON(turn.sin)]
          })
      })
  }

  private func batch(_ subject: ExplorerPage.Subject) -> JSON {
    let batch = run.batch
    var ids: [JSON] = Array(repeating: .null, count: batch.rows * batch.columns)
    var targets = ids
    var predictions = ids
    var named: [Int32: String] = [:]
    let vocabulary = run.shape(of: "logits")?.last ?? 0
    for (b, sequence) in batch.sequences.enumerated() {
      for (n, t) in batch.realColumns[b].enumerated() {
        let place = b * batch.columns + t
        ids[place] = JSON(Int(sequence.ids[n]))
        if let label = sequence.labels[n], sequence.adapter != nil { targets[place] = JSON(Int(label)) }
        let best = likeliest(run.values(of: "logits", in: place * vocabulary..<(place + 1) * vocabulary))
        predictions[place] = .array(best.map { [JSON($0.id), JSON($0.logit), JSON($0.probability)] })
        for id in [sequence.ids[n]] + (sequence.labels[n].map { [$0] } ?? []) + best.map({ Int32($0.id) }) { named[id] = subject.text(id) }
      }
    }
    var names = vocabularyNames ?? JSON.Object()
    for (id, text) in named.sorted(by: { $0.key < $1.key }) { names["\(id)"] = JSON(presentable(text)) }
    return [
      "rows": JSON(batch.rows), "columns": JSON(batch.columns),
      "real": .array(batch.realColumns.map { [JSON($0.lowerBound), JSON($0.upperBound)] }), "ids": .array(ids),
      "targets": .array(targets), "owners": .array(batch.sequences.map { $0.adapter.map { JSON($0) } ?? .null }), "names": .object(names),
      "predictions": .array(predictions),
    ]
  }

  /// The largest logits with their probabilities.
  private func likeliest(_ logits: [Double]) -> [(id: Int, logit: Float, probability: Double)] {
    let most = logits.max() ?? 0
    let sum = logits.reduce(0) { $0 + Double.exp($1 - most) }
    let order = logits.indices.sorted { (logits[$0], $1) > (logits[$1], $0) }.prefix(5)
    return order.map { ($0, Float(logits[$0]), Double.exp(logits[$0] - most) / sum) }
  }
}

/// Texts, each by its number.
private struct PageTexts {
  private(set) var all: [String] = []
  private var numbers: [String: Int] = [:]

  mutating func number(of text: String) -> Int {
    if let number = numbers[text] { return number }
    numbers[text] = all.count
    all.append(text)
    return all.count - 1
  }
}
