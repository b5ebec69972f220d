/// Questions in a short form, a line `swap: a b -> b a` each, as the demo's lie in the program: a third of what they are as records.
package enum ShortQuestions {
  /// The lines of JSON that users' files have: prompt and completion of the task swap. No text in them needs escapes.
  package static func records(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8] {
    var lines: [UInt8] = []
    for line in text.split(separator: UInt8(ascii: "\n")) {
      let (colon, arrow) = (line.firstIndex(of: UInt8(ascii: ":"))!, line.lastIndex(of: UInt8(ascii: ">"))!)
      lines += Array("{\"task\": \"".utf8) + line[..<colon] + Array("\", \"prompt\": \"".utf8) + line[...arrow]
      lines += Array("\", \"completion\": \"".utf8) + line[(arrow + 1)...] + Array("\"}\n".utf8)
    }
    return lines
  }
}
