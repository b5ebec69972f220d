import Platform

/// The local time as `strftime` writes it.
public enum Clock {
  /// Now, in a form of `strftime`; nil where the result would be very long.
  public static let now: @Sendable (String) -> String? = { POSIX.localTime($0) }
}
