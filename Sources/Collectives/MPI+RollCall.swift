import CMPI
import Platform

// Before ranks do something together each says that it has come. Nearly all waiting is here, for the slowest or for one that is gone, and
// here it is known for whom: a function of MPI that waits for all tells nobody who is missing.
extension MPI {
  /// Waits until every rank has come, and gives the least of their values.
  ///
  ///     rank r > 0 → rank 0    its value
  ///     rank 0 → rank r        once a second, to those who have come: how many are absent, and which
  ///                            at the end: 0, and the least value
  func rollCall(_ value: Int64 = 0) throws -> Int64 {
    let start = POSIX.seconds
    defer { waited(POSIX.seconds - start) }
    return try watchdog.watching(for: .absent([0])) { try rank == 0 ? callAll(value) : answer(value) }
  }

  private func callAll(_ value: Int64) throws -> Int64 {
    var (absent, least, told) = (Array(1..<size), value, POSIX.seconds)
    while true {
      watchdog.waits(for: .absent(absent))
      try poll {
        let before = absent.count
        try absent.removeAll { other in
          guard try isHeard(other) else { return false }
          least = min(least, try receive(1, from: other)[0])
          return true
        }
        return absent.count < before || POSIX.seconds - told >= 1
      }
      if absent.isEmpty { break }
      guard POSIX.seconds - told >= 1 else { continue }
      told = POSIX.seconds
      for other in 1..<size where !absent.contains(other) { try send(news(absent.count, absent.map(Int64.init)), to: other) }
    }
    for other in 1..<size { try send(news(0, [least]), to: other) }
    return least
  }

  private func answer(_ value: Int64) throws -> Int64 {
    try send([value], to: 0)
    while true {
      try poll { try isHeard(0) }
      let news = try receive(size, from: 0)
      if news[0] == 0 { return news[1] }
      watchdog.waits(for: .absent(news[1...Int(news[0])].map(Int.init)))
    }
  }

  /// What the first rank tells: always of the same length.
  private func news(_ count: Int, _ values: [Int64]) -> [Int64] {
    [Int64(count)] + values + Array(repeating: -1, count: size - 1 - values.count)
  }

  /// Asks until it is so; after a moment with pauses, which leave the core to ranks and threads that compute.
  private func poll(_ isSo: () throws -> Bool) throws {
    let start = POSIX.seconds
    while try !isSo() {
      if POSIX.seconds - start > 0.0005 { POSIX.sleep(0.00005) }
    }
  }

  private func isHeard(_ other: Int) throws -> Bool {
    var isHeard = false
    try check(mpi_probe(Int32(other), &isHeard), "MPI_Iprobe")
    return isHeard
  }

  private func send(_ values: [Int64], to other: Int) throws {
    var values = values
    try check(mpi_exchange(&values, Int32(values.count), Int32(other), nil, 0, -1, MPI_TYPE_INT64), "MPI_Sendrecv")
  }

  private func receive(_ count: Int, from other: Int) throws -> [Int64] {
    var values = [Int64](repeating: 0, count: count)
    try check(mpi_exchange(nil, 0, -1, &values, Int32(count), Int32(other), MPI_TYPE_INT64), "MPI_Sendrecv")
    return values
  }
}
