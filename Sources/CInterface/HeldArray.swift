import CMixLoRA
import JSON

/// Numbers that C reads where they are: allocated once, never written again, freed with the last who holds them.
final class HeldArray: Held, @unchecked Sendable {  // nobody writes behind `init`
  let text: HeldText
  private let data: UnsafeRawPointer
  private let sizes: UnsafePointer<Int64>
  private let axes: Int
  private let size: Int

  /// A copy of numbers, so that they lie still.
  init<Number: BitwiseCopyable>(_ name: String, _ shape: [Int], _ numbers: UnsafeBufferPointer<Number>) {
    let bytes = UnsafeRawBufferPointer(numbers)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, bytes.count), alignment: 64)
    memory.copyMemory(from: bytes)
    data = UnsafeRawPointer(memory.baseAddress!)
    let sizes = UnsafeMutablePointer<Int64>.allocate(capacity: max(1, shape.count))
    for (i, size) in shape.enumerated() { sizes[i] = Int64(size) }
    self.sizes = UnsafePointer(sizes)
    (axes, size) = (shape.count, MemoryLayout<Number>.size)
    text = HeldText(JSON(name).serialized())
  }

  deinit {
    data.deallocate()
    sizes.deallocate()
  }

  var description: mixlora_array { mixlora_array(data: data, shape: sizes, axes: Int32(axes), size: Int32(size)) }
}
