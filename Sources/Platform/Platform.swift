/// What this project takes from the system: files and error numbers of swift-system, eˣ, ln x, cos x … of swift-numerics (`Double.exp`,
/// which call the C library and nothing else, hence the same bits), and ``POSIX`` for the rest. No other target imports any of the three.
@_exported import RealModule
@_exported import SystemPackage
