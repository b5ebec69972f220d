import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// What the C library has and swift-system lacks; only this file and `Threads.swift` know which C library it is.
///
/// Paths go to the system letter by letter: swift-system's `FilePath` would drop a last "/", after which a file passes for a folder.
public enum POSIX {}

// MARK: Files and folders

extension POSIX {
  /// The absolute path of what is there, without links.
  ///
  /// - Throws: `Errno` of `realpath`.
  public static func canonicalPath(_ path: String) throws(Errno) -> String {
    guard let resolved = realpath(path, nil) else { throw Errno(rawValue: errno) }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  /// The names of what a folder holds, as the system lists them; nil if it cannot be read.
  public static func names(in folder: String) -> [String]? {
    guard let directory = opendir(folder) else { return nil }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }

  /// Makes a folder.
  ///
  /// - Throws: `Errno` of `mkdir`, `.fileExists` among them.
  public static func makeFolder(_ path: String) throws(Errno) { try check(mkdir(path, 0o777)) }

  /// Removes an empty folder.
  ///
  /// - Throws: `Errno` of `rmdir`.
  public static func removeFolder(_ path: String) throws(Errno) { try check(rmdir(path)) }

  /// Removes a file.
  ///
  /// - Throws: `Errno` of `unlink`.
  public static func removeFile(_ path: String) throws(Errno) { try check(unlink(path)) }

  /// Gives a file or folder another name; a file of that name is replaced in one step.
  ///
  /// - Throws: `Errno` of `rename`.
  public static func move(_ path: String, to target: String) throws(Errno) { try check(rename(path, target)) }

  /// Flushes an open file, or the names in an open folder, to its device.
  ///
  /// - Throws: `Errno` of `fsync`; one that was interrupted is called again.
  public static func flush(_ file: FileDescriptor) throws(Errno) {
    while fsync(file.rawValue) != 0 {
      if errno != EINTR { throw Errno(rawValue: errno) }
    }
  }

  /// Takes the advisory lock of an open file or folder, which is then held until it is closed: by this process or by its end.
  ///
  /// - Returns: false if somebody else holds it, another opening in this process included.
  /// - Throws: `Errno` of `flock`, where a file system has no locks.
  public static func lock(_ file: FileDescriptor) throws(Errno) -> Bool {
    while flock(file.rawValue, LOCK_EX | LOCK_NB) != 0 {
      if errno == EWOULDBLOCK { return false }
      if errno != EINTR { throw Errno(rawValue: errno) }
    }
    return true
  }

  /// Bytes that an ordinary user may still write to the disk of a folder; nil if the system does not tell.
  public static func freeBytes(_ path: String) -> Double? {
    var disk = statvfs()
    guard statvfs(path, &disk) == 0 else { return nil }
    return Double(disk.f_bavail) * Double(disk.f_frsize)
  }

  /// Whether a name fits a pattern of the shell, whose `*` stands for points and slashes too.
  public static func matches(_ name: String, _ pattern: String) -> Bool { fnmatch(pattern, name, 0) == 0 }

  /// The first lines of a small file of the system; none if it cannot be read.
  public static func lines(of path: String, atMost limit: Int = 200) -> [String] {
    guard let file = fopen(path, "r") else { return [] }
    defer { fclose(file) }
    var lines: [String] = []
    var buffer = [CChar](repeating: 0, count: 4096)
    while lines.count < limit, fgets(&buffer, Int32(buffer.count), file) != nil {
      lines.append(String(decoding: buffer.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }
    return lines
  }

  private static func check(_ result: Int32) throws(Errno) {
    if result != 0 { throw Errno(rawValue: errno) }
  }
}

// MARK: Mapped memory

extension POSIX {
  /// Bytes of a page.
  public static var pageSize: Int { Int(sysconf(Int32(_SC_PAGESIZE))) }

  /// Maps the first `count` bytes of an open file for reading.
  ///
  /// - Precondition: `count` > 0: an empty range cannot be mapped.
  /// - Throws: `Errno` of `mmap`.
  public static func map(_ file: FileDescriptor, count: Int) throws(Errno) -> UnsafeRawPointer {
    guard let address = mmap(nil, count, PROT_READ, MAP_PRIVATE, file.rawValue, 0), address != MAP_FAILED else {
      throw Errno(rawValue: errno)
    }
    return UnsafeRawPointer(address)
  }

  /// Ends a mapping.
  public static func unmap(_ base: UnsafeRawPointer, count: Int) { munmap(UnsafeMutableRawPointer(mutating: base), count) }

  /// Zeros in memory of this process's own. Whole pages are given back, where the system brings zeros when they are next asked for.
  public static func clear(_ base: UnsafeMutableRawPointer, count: Int) {
    #if os(Linux)
      let pages = wholePages(base, count)
      if !pages.isEmpty, madvise(base + pages.lowerBound, pages.count, Int32(MADV_DONTNEED)) == 0 {
        memset(base, 0, pages.lowerBound)
        memset(base + pages.upperBound, 0, count - pages.upperBound)
        return
      }
    #endif
    memset(base, 0, count)
  }

  /// The bytes of a range of memory that are whole pages, counted from its first.
  private static func wholePages(_ base: UnsafeRawPointer, _ count: Int) -> Range<Int> {
    let before = (pageSize - Int(bitPattern: base) % pageSize) % pageSize
    return before < count ? before..<before + (count - before) / pageSize * pageSize : 0..<0
  }

  /// Lets memory that is about to be used for the first time come in large pages, where the system has them. What is given
  /// back and written again at every step then interrupts it five hundred times less often.
  public static func preferLargePages(_ base: UnsafeMutableRawPointer, count: Int) {
    #if os(Linux)
      madvise(base, count, Int32(MADV_HUGEPAGE))
    #endif
  }

  /// Gives back the memory of whole pages of free memory, whose contents are lost, where the system takes it.
  public static func discard(_ base: UnsafeMutableRawPointer, count: Int) {
    #if os(Linux)
      let pages = wholePages(base, count)
      if !pages.isEmpty { madvise(base + pages.lowerBound, pages.count, Int32(MADV_DONTNEED)) }
    #endif
  }

  /// Whether `clear` and `discard` give memory back, so that zeros take none until they are written.
  public static var givesMemoryBack: Bool {
    #if os(Linux)
      true
    #else
      false
    #endif
  }

  /// Gives back the memory of whole pages of a mapping, which are read again when asked for. A hint: the system may keep them.
  public static func release(_ base: UnsafeRawPointer, count: Int) {
    madvise(UnsafeMutableRawPointer(mutating: base), count, Int32(MADV_DONTNEED))
  }
}

// MARK: Process and machine

extension POSIX {
  /// The number of this process.
  public static var processID: Int32 { getpid() }

  /// A variable of the environment; nil if it is not set.
  public static func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

  /// Cores that are switched on.
  public static var presentCores: Int { Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))) }

  /// The memory of this machine, in bytes.
  public static var memoryBytes: Double { Double(sysconf(Int32(_SC_PHYS_PAGES))) * Double(pageSize) }

  /// The resident size of this process now, in bytes; the largest so far where the system does not tell.
  public static var residentBytes: Int {
    let words = lines(of: "/proc/self/statm").first?.split(separator: " ") ?? []
    return words.count > 1 ? (Int(words[1]) ?? 0) * pageSize : peakResidentBytes
  }

  /// The largest resident size that this process has had, in bytes.
  public static var peakResidentBytes: Int {
    // Linux's rusage begins with the peak of the program that started this one.
    if let kilobytes = value(of: "VmHWM", in: "/proc/self/status")?.split(separator: " ").first.flatMap({ Int($0) }) {
      return 1024 * kilobytes
    }
    var usage = rusage()
    #if canImport(Glibc)
      getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    #else
      getrusage(RUSAGE_SELF, &usage)
    #endif
    #if canImport(Darwin)
      return usage.ru_maxrss
    #else
      return usage.ru_maxrss * 1024
    #endif
  }

  /// The name that the processor gives itself.
  public static var processorName: String {
    #if canImport(Darwin)
      var name = [CChar](repeating: 0, count: 256)
      var size = name.count - 1
      if sysctlbyname("machdep.cpu.brand_string", &name, &size, nil, 0) == 0 { return String(cString: name) }
    #endif
    return value(of: "model name", in: "/proc/cpuinfo") ?? "unknown processor"
  }

  /// Name and release of the system, and the kind of machine.
  public static var systemName: String {
    var names = utsname()
    guard uname(&names) == 0 else { return "unknown system" }
    func text<T>(_ field: T) -> String {
      withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    return "\(text(names.sysname)) \(text(names.release)), \(text(names.machine))"
  }

  /// What this machine calls itself among others.
  public static var hostName: String {
    var name = [CChar](repeating: 0, count: 256)
    guard gethostname(&name, name.count - 1) == 0 else { return "unknown machine" }
    return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Seconds of a clock that only moves forward.
  public static var seconds: Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }

  /// The local time as `strftime` writes it in the C locale; nil where that is nothing or longer than 4 kB.
  public static func localTime(_ form: String) -> String? {
    if form.isEmpty { return "" }
    var now = time(nil)
    var parts = tm()
    guard localtime_r(&now, &parts) != nil else { return nil }
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = strftime(&buffer, buffer.count, form, &parts)
    return count > 0 ? String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self) : nil
  }

  /// A number as `printf` writes it: `form` is one of e, E, f, F, g, G.
  public static func decimal(_ value: Double, form: Unicode.Scalar, precision: Int, isAlternate: Bool = false) -> String {
    let format = "%" + (isAlternate ? "#" : "") + ".*" + String(form)
    return withVaList([Int32(clamping: max(0, precision)), value]) { arguments in
      var buffer = [CChar](repeating: 0, count: 400 + max(0, precision))  // 309 digits, a sign, a point
      vsnprintf(&buffer, buffer.count, format, arguments)
      return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
  }

  /// The file of the program that runs; nil where the system does not tell.
  public static var programPath: String? {
    #if canImport(Darwin)
      var path = [CChar](repeating: 0, count: 4096)
      var size = UInt32(path.count)
      guard _NSGetExecutablePath(&path, &size) == 0 else { return nil }
      return String(decoding: path.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    #else
      return try? canonicalPath("/proc/self/exe")
    #endif
  }

  /// Runs a program to its end: what it wrote to standard output, and its exit code, or 128 and the number of the signal that ended it.
  ///
  /// - Throws: `Errno` of `pipe` and `posix_spawn`.
  public static func run(_ program: String, _ arguments: [String]) throws(Errno) -> (output: [UInt8], code: Int32) {
    var ends: [Int32] = [0, 0]
    try check(pipe(&ends))
    let reading = FileDescriptor(rawValue: ends[0])
    defer { try? reading.close() }
    #if canImport(Darwin)
      var actions: posix_spawn_file_actions_t?
    #else
      var actions = posix_spawn_file_actions_t()
    #endif
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
    for end in ends { posix_spawn_file_actions_addclose(&actions, end) }
    var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    var (process, state) = (pid_t(), Int32(0))
    let status = posix_spawn(&process, program, &actions, nil, &words, environ)
    close(ends[1])
    if status != 0 { throw Errno(rawValue: status) }
    var (output, piece) = ([UInt8](), [UInt8](repeating: 0, count: 4096))
    while let count = try? piece.withUnsafeMutableBytes({ try reading.read(into: $0) }), count > 0 { output += piece.prefix(count) }
    while waitpid(process, &state, 0) < 0, errno == EINTR {}
    return (output, state & 0x7f == 0 ? (state >> 8) & 0xff : 128 + state & 0x7f)
  }

  /// Waits so many seconds, signals or not.
  public static func sleep(_ seconds: Double) {
    let end = self.seconds + seconds
    while true {
      let left = end - self.seconds
      guard left > 0 else { return }
      usleep(UInt32(min(left, 0.5) * 1e6) + 1)
    }
  }

  /// Ends the process.
  public static func end(_ code: Int32) -> Never { exit(code) }

  /// Ends the process from any thread, whatever the others do, some seconds after a last word on standard error.
  public static func end(_ code: Int32, saying text: String, secondsBefore seconds: Double) -> Never {
    _ = try? FileDescriptor.standardError.writeAll(text.utf8)
    sleep(seconds)
    _exit(code)
  }
}

// MARK: Terminal and signals

extension POSIX {
  /// Whether an open file is a terminal.
  public static func isTerminal(_ file: FileDescriptor) -> Bool { isatty(file.rawValue) == 1 }

  /// Columns of the terminal that standard error goes to; nil where nobody says.
  public static var terminalColumns: Int? {
    var size = winsize()
    return ioctl(2, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 1 ? Int(size.ws_col) : nil
  }

  /// Writes out what the C library, hence `print`, still holds.
  ///
  /// - Throws: `Errno` of `fflush`: the place that it goes to takes no more.
  public static func flushOutput() throws(Errno) { try check(fflush(nil)) }

  /// A signal that this project deals with.
  public enum Signal: Sendable {
    /// Control-C.
    case interrupt
    /// The polite request to end.
    case termination
    /// A file would grow beyond what the process may write.
    case fileTooLarge

    fileprivate var number: Int32 {
      switch self {
      case .interrupt: SIGINT
      case .termination: SIGTERM
      case .fileTooLarge: SIGXFSZ
      }
    }
  }

  /// From here on a signal does nothing.
  public static func ignore(_ signal: Signal) { install(signal.number, SIG_IGN) }

  /// From here on a signal does what it does by default.
  public static func restore(_ signal: Signal) { install(signal.number, SIG_DFL) }

  /// From here on a signal calls `handler`, which may do no more than store an atomic value.
  ///
  /// It reaches this thread from here on, even if whoever started the process had blocked it: what programs start from a thread of
  /// libdispatch inherits a mask that blocks most signals, and Hydra hands that on to its ranks.
  public static func handle(_ signal: Signal, with handler: @escaping @convention(c) (Int32) -> Void) {
    install(signal.number, handler)
    var own = sigset_t()
    sigemptyset(&own)
    sigaddset(&own, signal.number)
    pthread_sigmask(SIG_UNBLOCK, &own, nil)
  }

  #if canImport(Darwin)
    private static func install(_ number: Int32, _ handler: (@convention(c) (Int32) -> Void)?) { _ = signal(number, handler) }
  #else
    private static func install(_ number: Int32, _ handler: __sighandler_t?) { _ = signal(number, handler) }
  #endif
}
