/// The binary16 number of `bits`, by bits: `Float16` does not exist on x86-64 macOS.
///
/// Exponent and fraction move to their place in binary32 and 2¹¹² corrects the bias, which also normalizes
/// subnormals; the largest exponent means infinity or NaN.
@inline(__always)
func float(half bits: UInt16) -> Float {
  let magnitude = UInt32(bits & 0x7fff) << 13
  let finite = (Float(bitPattern: magnitude) * 0x1p112).bitPattern
  let special = magnitude | 0x7f80_0000
  let sign = UInt32(bits & 0x8000) << 16
  return Float(bitPattern: sign | (magnitude >= 0x0f80_0000 ? special : finite))
}
