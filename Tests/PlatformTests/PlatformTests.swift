import Platform
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

@Suite struct PlatformTests {
  /// The oracle's eˣ is the C library's and nobody else's, so is all that a run's numbers hang on.
  @Test func elementaryFunctionsHaveTheBitsOfTheCLibrary() {
    var state: UInt64 = 1
    for _ in 0..<20_000 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let x = (Double(state >> 11) * 0x1p-53 - 0.5) * 1500
      let positive = abs(x) + 0x1p-40
      #expect(Double.exp(x).bitPattern == exp(x).bitPattern)
      #expect(Double.cos(x).bitPattern == cos(x).bitPattern)
      #expect(Double.sin(x).bitPattern == sin(x).bitPattern)
      #expect(Double.tanh(x).bitPattern == tanh(x).bitPattern)
      #expect(Double.log(positive).bitPattern == log(positive).bitPattern)
      #expect(Double.pow(positive, x / 100).bitPattern == pow(positive, x / 100).bitPattern)
      #expect(Float.log(Float(positive)).bitPattern == logf(Float(positive)).bitPattern)
    }
    for x in [Double.infinity, -Double.infinity, 0, -0.0, 709.79, -745.2] { #expect(Double.exp(x).bitPattern == exp(x).bitPattern) }
    #expect(Double.exp(.nan).isNaN)
  }

  @Test func pathsGoToTheSystemAsTheyAre() throws {
    #expect(try POSIX.canonicalPath("/usr/../usr/.") == "/usr")
    #expect(throws: Errno.noSuchFileOrDirectory) { try POSIX.canonicalPath("/nowhere/at/all") }
    #expect(throws: Errno.noSuchFileOrDirectory) { try POSIX.move("/nowhere/a", to: "/nowhere/b") }
    #expect(throws: Errno.fileExists) { try POSIX.makeFolder("/") }
    #expect(POSIX.names(in: "/nowhere") == nil && POSIX.names(in: "/")?.contains("usr") == true)
    #expect((try? Stat("/etc/passwd" as String)) != nil)
    // A last "/" says "folder", which `FilePath` would forget.
    #expect(throws: Errno.notDirectory) { try Stat("/etc/passwd/" as String) }
  }

  @Test func theMachineTellsWhatItIs() {
    #expect(POSIX.presentCores > 0 && POSIX.pageSize >= 4096 && POSIX.memoryBytes > 1e8 && POSIX.peakResidentBytes > 1 << 20)
    #expect(POSIX.freeBytes("/") != nil && POSIX.freeBytes("/nowhere") == nil)
    #expect(POSIX.environment("PATH") != nil && POSIX.environment("NO_SUCH_VARIABLE_HERE") == nil)
    #expect(POSIX.matches("model.layers.0.mlp", "model.*.mlp") && !POSIX.matches("model.norm", "*.mlp"))
    let start = POSIX.seconds
    #expect(POSIX.seconds >= start)
  }

  /// What lies around a range keeps its bytes; the pages in it are no longer there.
  @Test(.enabled(if: POSIX.givesMemoryBack), arguments: [true, false]) func memoryThatIsGivenBackIsThatOfTheRangeAlone(clears: Bool) throws
  {
    let giveBack = clears ? POSIX.clear(_:count:) : POSIX.discard(_:count:)
    let (page, pages) = (POSIX.pageSize, 512)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: pages * page, alignment: page)
    defer { memory.deallocate() }
    let base = try #require(memory.baseAddress)
    memory.initializeMemory(as: UInt8.self, repeating: 0xab)
    func presentPages() -> Int {
      [UInt8](unsafeUninitializedCapacity: pages) { found, count in
        #expect(mincore(base, pages * page, found.baseAddress) == 0)
        count = pages
      }.count { $0 & 1 == 1 }
    }
    #expect(presentPages() == pages)
    let range = 100..<(pages - 3) * page + 7  // begins and ends within a page
    giveBack(base + range.lowerBound, range.count)
    #expect(presentPages() <= 5)
    let whole = page..<(pages - 3) * page
    #expect(memory[whole].allSatisfy { $0 == 0 })
    #expect(memory[..<100].allSatisfy { $0 == 0xab } && memory[range.upperBound...].allSatisfy { $0 == 0xab })
    POSIX.clear(base + range.lowerBound, count: range.count)
    #expect(memory[range].allSatisfy { $0 == 0 })
    #expect(memory[..<100].allSatisfy { $0 == 0xab } && memory[range.upperBound...].allSatisfy { $0 == 0xab })
    // Less than a page, and nothing.
    giveBack(base, 99)
    giveBack(base, 0)
    #expect(memory[99] == 0xab)
  }
}
