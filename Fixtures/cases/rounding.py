"""What rounding can do to a computation, found by doing it: every operation's numbers are moved by ±δ, and the result's shift is read."""
import math
import torch
from torch.utils._python_dispatch import TorchDispatchMode

DELTA = 2.0 ** -30                               # large beside float64's own rounding, small beside every margin
ELEMENTARY = 8                                   # roundings that e^x, tanh … of a careful vector library count for
# operations that add up: how many terms an element of the result has
SUMS = {"mm": lambda a, o: a[0].shape[-1], "bmm": lambda a, o: a[0].shape[-1], "addmm": lambda a, o: a[1].shape[-1],
        "sum": lambda a, o: a[0].numel() // max(o.numel(), 1), "mean": lambda a, o: a[0].numel() // max(o.numel(), 1),
        "_softmax": lambda a, o: a[0].shape[a[1]], "_log_softmax": lambda a, o: a[0].shape[a[1]],
        "embedding_dense_backward": lambda a, o: a[1].numel(), "index_put": lambda a, o: a[2].shape[0] if torch.is_tensor(a[2]) else 1,
        "linalg_vector_norm": lambda a, o: a[0].numel()}


class Rounded(TorchDispatchMode):
    """Moves what every operation reads and what it gives, element by element, by a relative ±delta; notes the longest sum."""

    def __init__(self, delta, seed):
        super().__init__()
        self.delta, self.longest, self.draw = delta, ELEMENTARY, torch.Generator().manual_seed(seed)

    def moved(self, x):
        if not torch.is_tensor(x) or x.dtype != torch.float64 or not self.delta: return x
        return x * (1 + self.delta * (2 * torch.randint(0, 2, x.shape, generator=self.draw).double() - 1))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if name in SUMS: args = tuple(self.moved(a) for a in args)                # its terms, for what cancels among them
        out = func(*args, **kwargs)
        if name in SUMS and torch.is_tensor(out): self.longest = max(self.longest, int(SUMS[name](args, out)))
        if func._schema.is_mutable:
            if torch.is_tensor(out) and out.dtype == torch.float64: out.copy_(self.moved(out))
            return out
        if any(r.alias_info is not None for r in func._schema.returns): return out     # a view has no rounding
        if torch.is_tensor(out): return self.moved(out)
        return type(out)(self.moved(o) for o in out) if isinstance(out, (tuple, list)) else out


def condition(run, exact, runs=24):
    """For each floating tensor of `exact`, κ: the largest ‖moved − exact‖ / (δ ‖exact‖) of several runs; and the longest sum of all.

    Infinite where terms cancel to nothing: what is left of them after rounding says nothing.
    """
    worst, longest = {}, ELEMENTARY
    for seed in range(runs):
        with Rounded(DELTA, seed) as mode: moved = run()
        longest = max(longest, mode.longest)
        for name, y in exact.items():
            if y.dtype != torch.float64: 
                assert torch.equal(moved[name], y), f"{name}: a decision within rounding"
                continue
            norm = y.norm().item()
            shift = (moved[name] - y).norm().item()
            worst[name] = max(worst.get(name, 0), shift / (DELTA * norm) if norm else math.inf if shift else 0)
    return worst, longest
