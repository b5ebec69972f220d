import Foundation

/// Swift files of the project, as text.
struct SourceTree {
  struct File {
    let target: String
    let path: String
    let lines: [String]
  }

  let files: [File]

  /// Reads `<folder>/<target>/**/*.swift` of the package that this test belongs to.
  init(_ folder: String = "Sources", file: String = #filePath) throws {
    let root = URL(filePath: file).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let sources = root.appending(path: folder)
    var files: [File] = []
    let walk = FileManager.default.enumerator(at: sources, includingPropertiesForKeys: nil)
    while let url = walk?.nextObject() as? URL {
      guard url.pathExtension == "swift" else { continue }
      let path = String(url.path.dropFirst(sources.path.count + 1))
      let text = try String(contentsOf: url, encoding: .utf8)
      files.append(File(target: String(path.split(separator: "/")[0]), path: path, lines: text.components(separatedBy: "\n")))
    }
    self.files = files.sorted { $0.path < $1.path }
  }
}
