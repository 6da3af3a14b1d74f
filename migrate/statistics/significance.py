"""p values that a run is worse, or better, than earlier ones: by its attempts, and by its level.

Both tests must speak against a run. The attempts' rank sum (Wilcoxon 1945, Mann and Whitney 1947;
exact by the shift algorithm of Streitberg and Röhmel 1986) asks whether its attempts could be any
of all attempts. The runs' test asks whether it could be any of all runs: the trimmed mean of the
logarithms of each, the new one against the spread of the earlier ones, Student's t for one more
value. Values known between two bounds only are ranked by what is sure (Gehan 1965). Family-wise
error: Holm 1979.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from migrate.errors import extra

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Unit = Literal["run", "attempt"]

EXACT_BELOW = 0.1
"""From here on down a p is made exact."""
EXACT_ADDITIONS = 5e6
"""Additions that an exact p may take, some milliseconds; beyond, the normal
approximation has to do."""
MOST_SUGGESTED = 60
"""Attempts, or runs, that a remedy suggests at most."""


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p values: at most alpha where Holm's step-down rejects at alpha."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, most = [0.0] * len(values), 0.0
    for position, index in enumerate(order):
        most = max(most, min(1.0, (len(values) - position) * values[index]))
        adjusted[index] = most
    return adjusted


def p_values(
    low: Floats, high: Floats, sizes: Sequence[int], unit: Unit = "run", *, rate: bool = False
) -> Floats:
    """p that the last run is worse, and that it is better: the larger one of both tests.

    ``low`` and ``high`` have attempts on their last axis, run after run of ``sizes``, the new run
    last; what other axes they have, the two p values come on a last one beside them.
    """
    n, shape = sizes[-1], low.shape[:-1]
    low, high = (np.reshape(values, (-1, sum(sizes))) for values in (low, high))
    ranks = np.array([doubled_ranks(*row) for row in zip(low, high, strict=True)])
    runs = np.zeros((len(ranks), 2))
    if unit == "run":
        numbers = run_levels(low, high, rate=rate)
        *earlier, new = np.split(numbers, np.cumsum(sizes[:-1]), axis=1)
        runs = runs_test(earlier, new, rate=rate)
    attempts = attempts_test(ranks, n)
    for row, side in np.argwhere(np.maximum(attempts, runs) <= EXACT_BELOW):
        lean = -ranks[row] if side else ranks[row]
        if _additions(lean, n) <= EXACT_ADDITIONS:
            attempts[row, side] = exact_p(lean, n)
    return np.maximum(attempts, runs).reshape((*shape, 2))


def run_levels(low: Floats, high: Floats, *, rate: bool) -> Floats:
    """Values for the runs' test: plain numbers for a rate, logarithms of times.

    In the floor counts as the floor, and at least as that bound: the ranks handle what can't be
    known of it.
    """
    plain = np.where(np.isinf(high), low, high)
    return plain if rate else np.log1p(plain)


def doubled_ranks(low: Floats, high: Floats) -> Ints:
    """Twice the rank of each among all: one more for each that is surely less, one less for each
    that is surely more. Twice the midranks where each is known exactly."""
    less = np.searchsorted(np.sort(high), low, "left")
    more = len(low) - np.searchsorted(np.sort(low), high, "right")
    return np.asarray(less - more + len(low) + 1, dtype=np.int64)


def tail_functions() -> Any:
    """scipy's tails of distributions, for arrays. ConfigurationError: no scipy."""
    with extra("gate", "compare runs"):
        from scipy import special  # noqa: PLC0415  it takes long to import
    return special


def attempts_test(ranks: Ints, n: int) -> Floats:
    """p that the last ``n`` of each row are so high, and so low: the sum's normal approximation."""
    total = ranks.shape[-1]
    spreads = np.sqrt(ranks.var(axis=-1) * n * (total - n) / max(1, total - 1))
    off = ranks[..., -n:].sum(axis=-1) - n * (total + 1)
    z = _divide(np.stack([off, -off], axis=-1) - 1, spreads[..., None])
    return np.asarray(np.where(spreads[..., None] > 0, tail_functions().ndtr(-z), 1.0))


def _divide(top: Floats, bottom: Floats) -> Floats:
    """``top / bottom``; over no width 0 for 0, and infinity for anything else."""
    bottom = np.broadcast_to(bottom, top.shape)
    endless = np.where(top == 0, 0.0, np.copysign(np.inf, top))
    return np.divide(top, bottom, out=endless, where=bottom > 0)


def exact_p(ranks: Ints, n: int) -> float:
    """p that the last ``n`` have so high a sum, over all ways to choose as many of all."""
    if 2 * n > len(ranks):  # the others' sum is as low then, and they are fewer
        return exact_p(-ranks[::-1], len(ranks) - n)
    below = _ranks_below(ranks)
    size = int(below[-n:].sum()) + 1
    ways = np.zeros((n + 1, size))
    ways[0, 0] = 1
    for rank in below[below < size]:
        ways[1:, rank:] += ways[:-1, : size - rank].copy()
    return float(ways[n].sum() / math.comb(len(ranks), n))


def _ranks_below(ranks: Ints) -> Ints:
    """How far each rank is below the highest, divided by their common divisor: small where p is."""
    below = ranks.max() - ranks
    return np.asarray(below // (np.gcd.reduce(below) or 1), dtype=np.int64)


def _additions(ranks: Ints, n: int) -> float:
    """Additions that :func:`exact_p` takes, at most."""
    if 2 * n > len(ranks):
        return _additions(-ranks[::-1], len(ranks) - n)
    if math.comb(len(ranks), n).bit_length() > sys.float_info.max_exp:
        return math.inf  # more ways than a float can count
    return float(n * len(ranks) * (_ranks_below(ranks)[-n:].sum() + 1))


@dataclass(frozen=True, slots=True)
class RunSpread:
    """Earlier runs by their levels: how these differ, and how the attempts of one run do.

    ``between`` is the variance of the levels, ``within`` of the attempts of a run, ``each`` how
    many a run has: their harmonic mean.
    """

    number: int
    between: Floats
    within: Floats
    each: float

    def width(self, n: int) -> Floats:
        """Deviation of the level of one more run, of ``n`` attempts, from the others' middle.

        A run of fewer attempts than the others has a wider level; one of more counts as wide.
        """
        fewer = max(0.0, 1 / n - 1 / self.each)
        return np.sqrt(self.between * (1 + 1 / self.number) + self.within * fewer)

    def as_if(self, number: int, each: int) -> RunSpread:
        """The spread of ``number`` runs of ``each`` attempts, estimated from these."""
        apart = np.maximum(0.0, self.between - self.within / self.each)
        return RunSpread(number, apart + self.within / each, self.within, each)

    def detectable_change(self, n: int, target: float) -> float:
        """The change of the level whose p is ``target``: half of such changes look larger."""
        return float(tail_functions().stdtrit(self.number - 1, 1 - target) * self.width(n))


def trimmed_mean(values: Floats, *, rate: bool) -> Floats:
    """The mean without a fifth at either end (Tukey and McLaughlin 1963): outliers don't count.

    A rate is a mean of all: what fails now and then would be an outlier.
    """
    size = values.shape[-1]
    cut = 0 if rate else size // 5
    return np.asarray(np.sort(values)[..., cut : size - cut].mean(axis=-1))


def run_spread(earlier: Sequence[Floats], new: Floats, *, rate: bool) -> RunSpread:
    """The spread of at least two runs, attempts on the last axis."""
    every = [*earlier, new]
    free = sum(run.shape[-1] - 1 for run in every)
    within = sum(run.var(axis=-1) * run.shape[-1] for run in every) / max(1, free)
    each = len(earlier) / sum(1 / run.shape[-1] for run in earlier)
    levels = np.stack([trimmed_mean(run, rate=rate) for run in earlier], axis=-1)
    return RunSpread(len(earlier), levels.var(axis=-1, ddof=1), within, each)


def runs_test(earlier: Sequence[Floats], new: Floats, *, rate: bool) -> Floats:
    """p that one more run has so high, and so low, a level, by the spread of the others' levels."""
    width = run_spread(earlier, new, rate=rate).width(new.shape[-1])
    middle = np.mean([trimmed_mean(run, rate=rate) for run in earlier], axis=0)
    off = trimmed_mean(new, rate=rate) - middle
    t = _divide(np.stack([-off, off], axis=-1), width[..., None])
    # Without any spread and any difference there is nothing that speaks against it.
    return np.asarray(
        np.where(np.isinf(t) | (t != 0), tail_functions().stdtr(len(earlier) - 1, t), 1.0)
    )


def needed_to_find(runs: RunSpread, n: int, target: float, ratio: float) -> str:
    """Attempts a run, or else runs, that it takes to find a change of ``ratio``, of logarithms."""
    for more in range(n + 1, MOST_SUGGESTED + 1):
        attempts = max(round(runs.each), more)
        if runs.as_if(runs.number, attempts).detectable_change(more, target) <= ratio:
            return f"{more} per run would do"
    for more in range(runs.number + 1, MOST_SUGGESTED + 1):
        if runs.as_if(more, max(1, round(runs.each))).detectable_change(n, target) <= ratio:
            return f"{more} baseline runs would do"
    return f"runs differ too much for {MOST_SUGGESTED} attempts, or as many baseline runs, to do"


# --- rates ----------------------------------------------------------------------------------------


def newcombe(before: Floats, new: Floats, p_low: float, p_high: float) -> tuple[float, float]:
    """Newcombe 1998, method 10: of a difference of rates, from Wilson's interval of each.

    ``p_low`` and ``p_high``: the chance that the difference is below, and that it is above.
    """
    (p, q), ends = (float(new.mean()), float(before.mean())), []
    for sign, chance in ((-1, p_low), (1, p_high)):
        z = float(tail_functions().ndtri(1 - chance))
        own, other = _wilson(new, sign * z), _wilson(before, -sign * z)
        ends.append(p - q + sign * math.hypot(p - own, q - other))
    return ends[0], ends[1]


def _wilson(values: Floats, z: float) -> float:
    """An end of Wilson's interval of a rate: the lower one for ``z`` below 0."""
    n, p = len(values), float(values.mean())
    middle = p + z * z / (2 * n)
    return (middle + z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)


def detectable_rate(failed: int, of: int, n: int, target: float) -> float:
    """The rate of failures whose number among ``n`` has even chances to be called by Fisher's test.

    ``failed`` of ``of`` failed before. Above 1 where no number is called.
    """
    called = next((k for k in range(1, n + 1) if fisher_p(failed, of, k, n) <= target), n + 1)
    return (called - 1 / 3) / (n + 1 / 3)  # the median of so many's beta distribution, nearly


def fisher_p(failed: int, of: int, k: int, n: int) -> float:
    """p of ``k`` failures or more among ``n``, if ``failed`` of ``of`` others failed."""
    log = tail_functions().gammaln
    every = np.arange(k, min(n, failed + k) + 1)

    def ways(total: Any, chosen: Any) -> Any:
        return log(total + 1.0) - log(chosen + 1.0) - log(total - chosen + 1.0)

    others = failed + k - every
    likely = ways(n, every) + ways(of, others) - ways(n + of, failed + k)
    return float(np.exp(likely[others <= of]).sum())
