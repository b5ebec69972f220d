import Tensors

extension CaseList {
  /// Sharing, counting, and what a backend says about itself.
  mutating func addCounters() {
    add("sharing", "a write to shared storage makes one copy, another none", [.contiguous]) { trial in
      let m = trial.source.matrix(5, 9)
      var x = trial.backend.upload(m.values.map { B.Scalar($0) }, Shape(5, 9))
      var start = trial.backend.counters
      trial.backend.scale(2, &x)
      let alone = (trial.backend.counters - start).sharedCopies
      trial.expect(alone == 0, "\(alone) copies counted for a tensor that nobody shares")
      let other = x
      start = trial.backend.counters
      trial.backend.scale(2, &x)
      trial.backend.scale(2, &x)
      let shared = (trial.backend.counters - start).sharedCopies
      trial.expect(shared == 1, "\(shared) copies counted for a shared tensor that is written twice")
      try trial.expectExactly("the other", other, Naive.scale(2, m))
      try trial.expectExactly("x", x, Naive.scale(8, m))
    }
    add("counters", "bytes between host and device", [.contiguous]) { trial in
      let start = trial.backend.counters
      let x = trial.device(trial.source.matrix(3, 7))
      _ = try trial.backend.download(x.rows(1..<3))
      let moved = trial.backend.counters - start
      let width = MemoryLayout<B.Scalar>.size
      trial.expect(moved.bytesToDevice == 21 * width, "\(moved.bytesToDevice) bytes to the device, expected \(21 * width)")
      trial.expect(moved.bytesToHost == 14 * width, "\(moved.bytesToHost) bytes to the host, expected \(14 * width)")
    }
    add("counters", "an operation is one, whatever it calls; a download waits once", [.contiguous]) { trial in
      let b = trial.backend
      let m = trial.source.matrix(5, 9)
      var y = trial.device(m)
      let plan = PlanSizes(tokens: 5, experts: 4, k: 2, choices: .random).plan(&trial.source)
      let routing = trial.routing(plan)
      func expect(_ operations: Int, _ waits: Int, _ name: String, _ body: () throws -> Void) rethrows {
        let start = b.counters
        try body()
        let counted = b.counters - start
        let found = (counted.operations, counted.waits)
        trial.expect(found == (operations, waits), "\(name) counts \(found), expected \((operations, waits))")
      }
      expect(1, 0, "an upload") { _ = trial.device(m) }
      expect(1, 0, "integers") { _ = trial.device([1, 2, 3]) }
      expect(1, 0, "fill") { b.fill(0, &y) }
      expect(1, 0, "zeros") { _ = b.zeros(Shape(3, 3)) }
      let other = y
      expect(1, 0, "scale of a shared tensor") { b.scale(2, &y) }
      expect(1, 0, "dispatch") { _ = b.dispatch(other, routing) }
      expect(1, 0, "sum") { _ = b.sum(y) }
      expect(2, 0, "a product by matmul and one more") {
        var product = b.matmul(y, other.T)
        b.addProduct(1, y, other.T, into: &product)
      }
      try expect(1, 1, "a download") { _ = try b.download(y) }
      try expect(1, 1, "a download of three") { _ = try b.download([y, other, y]) }
      try expect(1, 1, "a download of integers") { _ = try b.download(routing.offsets) }
    }
    add("synchronize", "waits and is no operation", [.contiguous]) { trial in
      let x = trial.device(trial.source.vector(3))
      let start = trial.backend.counters
      try trial.backend.synchronize()
      let counted = trial.backend.counters - start
      trial.expect(counted.waits == 1 && counted.operations == 0, "counts \(counted.waits) waits and \(counted.operations) operations")
      _ = x
    }
    add("headRows", "a head's rows are some", [.contiguous]) { trial in
      let weight = Weight<B>.frozen(trial.backend.freeze(trial.device(trial.source.matrix(9, 5))))
      trial.expect(trial.backend.headRows(weight) > 0, "no row at a time")
      trial.expect(trial.backend.headRows(.trained(Parameter("w", trial.device(Matrix(9, 5)), on: trial.backend))) > 0, "no row at a time")
      trial.expect(trial.backend.productRoundoff >= Double(B.Scalar.ulpOfOne) / 2, "a product is more exact than its scalars")
    }
    add("scratchBytes", "are no less for longer sequences", [.contiguous]) { trial in
      let weight = Weight<B>.frozen(trial.backend.freeze(trial.device(trial.source.matrix(9, 5))))
      let (short, long) = (trial.backend.scratchBytes(rows: 7, [weight]), trial.backend.scratchBytes(rows: 700, [weight]))
      trial.expect(short >= 0 && long >= short, "\(short) bytes for 7 rows, \(long) for 700")
    }
    add("endWarmUp", "and a shorter batch changes nothing", [.contiguous]) { trial in
      let m = trial.source.matrix(65, 33)
      _ = trial.device(m)
      trial.backend.endWarmUp()
      try trial.expectExactly("x", trial.device(m.rows(0..<9)), m.rows(0..<9))
      try trial.expectExactly("zeros", trial.backend.zeros(Shape(9, 33)), Matrix(9, 33))
    }
  }
}
