/// What is wrong with decisions as a file has them, in words that name the row.
enum RecordedDecision {
  /// Of a token's slots of `choice`: expert numbers, −1 for none.
  static func fault(inChoice slots: some Collection<Double>, experts: Int? = nil) -> String? {
    let chosen = slots.filter { $0 != -1 }
    if let bad = chosen.first(where: { expert in Int(exactly: expert).map { $0 < 0 || $0 >= experts ?? .max } ?? true }) {
      return "chose expert \(plain(bad))\(experts.map { " of \($0)" } ?? ""), which is none"
    }
    return Set(chosen).count == chosen.count ? nil : "chose an expert twice: \(chosen.map(plain).joined(separator: ", "))"
  }

  /// Of an expert's `tokens`, places b·T + t of which `isToken` knows.
  static func fault(inTokens places: [Double], columns: Int, isToken: (Int) -> Bool = { $0 >= 0 }) -> String? {
    var rows: [Double: Int] = [:]
    for (row, place) in places.enumerated() {
      guard let number = Int(exactly: place), isToken(number) else {
        return "row \(row) is token \(plain(place)), which is none of the batch's"
      }
      if let other = rows.updateValue(row, forKey: place) {
        return "rows \(other) and \(row) are both token \(number), \(Self.place(number, columns))"
      }
    }
    return nil
  }

  /// A place b·T + t of a batch with T columns.
  static func place(_ place: Int, _ columns: Int) -> String {
    columns > 0 ? "row \(place / columns), column \(place % columns)" : "row \(place)"
  }
}
