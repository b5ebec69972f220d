"""The search of a learning rate."""
import math


class Search:
    """`runs(rate)` are the runs that try a rate; `best` is the rate of the least mean loss when all are there, else None.

    With `more`, rates to either side, the search goes on while the best one is the smallest or the largest tried.
    """

    def __init__(self, rates, runs, done, more=()):
        self.jobs, self.best, self.losses = [], None, {}
        rates = sorted(rates)
        while True:
            self.jobs = [job for rate in rates for job in runs(rate)]
            if any(job.key not in done for job in self.jobs):
                return
            self.losses = {rate: mean_loss([done[job.key] for job in runs(rate)]) for rate in rates}
            self.best = min(rates, key=self.losses.get)
            wider = [r for r in more if r < rates[0]][-1:] if self.best == rates[0] else [r for r in more if r > rates[-1]][:1]
            if self.best not in (rates[0], rates[-1]) or not wider:
                return
            rates, self.best = sorted(rates + wider), None


def mean_loss(lines):
    """By validation where there is one; a run that came to no number is no candidate."""
    losses = [line.get("validation", line.get("loss")) for line in lines]
    return sum(losses) / len(losses) if all(loss is not None and math.isfinite(loss) for loss in losses) else math.inf
