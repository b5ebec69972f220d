import Platform

/// How the learning rate changes from step to step, as `get_scheduler` of transformers 4.46.3 defines it.
///
/// With T steps in all, w of them warm-up, and t = 0, 1, … the step (counted from 0), the rate is lr times
///
///     t < w                    t / max(1, w)                      (so the first step of a warm-up has rate 0)
///     constant                 1, always                          it knows no warm-up
///     constant_with_warmup     1
///     linear                   (T − t) / max(1, T − w)
///     cosine                   ½ (1 + cos(π q)),  q = (t − w) / max(1, T − w)
///     cosine_with_restarts     the same with one cycle, 0 from q = 1 on
///     polynomial               power 1, from lr down to 10⁻⁷:  ((lr − 10⁻⁷)(1 − q) + 10⁻⁷) / lr,  10⁻⁷ / lr beyond T
///     inverse_sqrt             1 / √((t + s) / τ),  τ = w, or 10 000 without warm-up,  s = τ − w
///
/// and never below 0.
public enum LearningRateSchedule: String, Sendable, CaseIterable {
  /// Always lr.
  case constant
  /// lr after the warm-up.
  case constantWithWarmup = "constant_with_warmup"
  /// A straight line down to 0.
  case linear
  /// Half a cosine down to 0.
  case cosine
  /// As `cosine` with one cycle.
  case cosineWithRestarts = "cosine_with_restarts"
  /// A straight line down to 10⁻⁷.
  case polynomial
  /// Falls with the root of the step.
  case inverseSqrt = "inverse_sqrt"

  /// The learning rate of step `step`, counted from 0.
  ///
  /// - Precondition: `steps` ≥ 1 and 0 ≤ `warmup`; `step` may lie beyond `steps`.
  public func learningRate(atStep step: Int, of steps: Int, warmup: Int, base: Double) -> Double {
    base * factor(Double(step), Double(steps), Double(warmup), base)
  }

  private func factor(_ t: Double, _ total: Double, _ w: Double, _ base: Double) -> Double {
    if self != .constant, t < w { return t / max(1, w) }
    let progress = (t - w) / max(1, total - w)
    switch self {
    case .constant, .constantWithWarmup: return 1
    case .linear: return max(0, (total - t) / max(1, total - w))
    case .cosine: return max(0, 0.5 * (1 + Double.cos(.pi * progress)))
    case .cosineWithRestarts: return progress >= 1 ? 0 : max(0, 0.5 * (1 + Double.cos(.pi * progress)))
    case .polynomial:
      let end = 1e-7
      if t > total || base <= 0 { return base > 0 ? end / base : 0 }
      return ((base - end) * (1 - (t - w) / max(1, total - w)) + end) / base
    case .inverseSqrt:
      let scale = w > 0 ? w : 10_000
      return 1 / ((t + scale - w) / scale).squareRoot()
    }
  }
}
