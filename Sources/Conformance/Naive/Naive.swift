/// The naive definition of every operation of a backend: what the operation means, in the plainest loops.
///
/// Everything is float64 on plain arrays. Each backend is tested against these functions, and each derivative here
/// is checked by finite differences of the forward function beside it. A derivative is written from the definition
/// (a full Jacobian, the quotient rule), not from the formula that kernels use, so that both cannot share a mistake.
///
/// Letters: N rows (tokens), C channels, F hidden width, H heads, G key and value heads, D head width,
/// V vocabulary, E experts, S slots of a token, M rows ordered by expert, r rank.
public enum Naive {}
