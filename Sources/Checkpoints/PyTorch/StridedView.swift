/// A strided view of a flat storage, in elements: element i₀…iₙ is at offset + Σ iₖ·strideₖ.
struct StridedView: Equatable, Sendable {
  let offset: Int
  let shape: [Int]
  let strides: [Int]

  /// Whether walking through the view in row-major order walks through the storage without a jump.
  var isContiguous: Bool {
    if shape.contains(0) { return true }
    var expected = 1
    for (size, stride) in zip(shape, strides).reversed() where size != 1 {
      guard stride == expected else { return false }
      // The product cannot overflow: it is at most the element count, which the entry has checked.
      expected *= size
    }
    return true
  }

  /// The position after the last element; nil on overflow or for a negative offset or stride.
  var end: Int? {
    guard offset >= 0, shape.count == strides.count, strides.allSatisfy({ $0 >= 0 }), shape.allSatisfy({ $0 >= 0 }) else { return nil }
    if shape.contains(0) { return offset }
    var last = offset
    for (size, stride) in zip(shape, strides) {
      let (step, stepOverflow) = (size - 1).multipliedReportingOverflow(by: stride)
      let (sum, sumOverflow) = last.addingReportingOverflow(step)
      guard !stepOverflow, !sumOverflow else { return nil }
      last = sum
    }
    let (end, overflow) = last.addingReportingOverflow(1)
    return overflow ? nil : end
  }

  /// The view's elements in row-major order.
  ///
  /// - Precondition: `end` is within the storage.
  /// - Complexity: O(elements).
  func gather(from storage: UnsafeRawBufferPointer, elementSize: Int, count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count * elementSize)
    var index = [Int](repeating: 0, count: shape.count)
    var position = offset
    for _ in 0..<count {
      bytes.append(contentsOf: storage[(position * elementSize)..<((position + 1) * elementSize)])
      // Count the index up like an odometer, innermost wheel first. An axis of size 1 may have any stride, so the position only ever
      // moves to elements that exist.
      for axis in shape.indices.reversed() {
        if index[axis] + 1 < shape[axis] {
          index[axis] += 1
          position += strides[axis]
          break
        }
        position -= index[axis] * strides[axis]
        index[axis] = 0
      }
    }
    return bytes
  }
}
