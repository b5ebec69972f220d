import Foundation

/// Where the numbers of a run lie.
let temporaryFolder = FileManager.default.temporaryDirectory.path
