import Decoders
import Tensors

/// A base of random numbers in a format of files, so that a large one is at hand at once: every matrix is the same piece of encoded
/// numbers, as often as it goes in. What they are does not matter to a clock, as long as they are finite and of a usual size.
struct RandomMatrices<B: Backend>: WeightSource {
  private let format: WeightFormat
  private let initial: InitialWeights<B>
  private let piece: [UInt8]
  private let backend: B

  init(_ format: WeightFormat, _ initial: InitialWeights<B>, seed: UInt64, on backend: B) {
    self.format = format
    self.initial = initial
    self.backend = backend
    let key = RandomKey(seed: seed).derived("base", "bench")
    var bytes: [UInt8] = []
    for i in 0..<UInt32(1 << 16) {
      let drawn = withUnsafeBytes(of: Philox.numbers(counter: SIMD4(i, 0, 0, 0), key: key)) { Array($0) }
      if format == .q4_0 {
        bytes += [0x00, 0x1c]  // a scale of 2⁻⁸ as binary16, then 32 times 4 bits around 8: deviation 0.018
        bytes += drawn
      } else {
        for low in stride(from: 0, to: 16, by: 2) { bytes += [drawn[low], drawn[low + 1] & 0x80 | 0x3c] }  // ± 2⁻⁷ (1 … 4)
      }
    }
    piece = bytes
  }

  func tensor(_ name: String, _ shape: Shape, _ initial: InitialValue) -> Tensor<B> { self.initial.tensor(name, shape, initial) }

  func frozen(_ name: String, _ shape: Shape, _ initial: InitialValue) -> B.FrozenMatrix {
    guard !shape.isVector, shape.columns % format.blockCount == 0 else { return self.initial.frozen(name, shape, initial) }
    let count = shape.rows * format.rowBytes(shape.columns)
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      let to = UnsafeMutableRawBufferPointer(buffer)
      piece.withUnsafeBytes { piece in
        for start in stride(from: 0, to: count, by: piece.count) {
          let part = min(piece.count, count - start)
          UnsafeMutableRawBufferPointer(rebasing: to[start..<start + part]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: piece[..<part]))
        }
      }
      filled = count
    }
    return bytes.withUnsafeBytes { backend.freeze($0, format, shape) }
  }
}
