"""Whether a run is worse than earlier ones: ranks for skewed and censored values, runs as units.

Two tests must both speak against a run. The attempts' rank sum (Wilcoxon 1945, Mann and Whitney
1947; exact by the shift algorithm of Streitberg and Röhmel 1986) asks whether its attempts could be
any of all attempts. The runs' test asks whether it could be any of all runs: the trimmed mean of
the logarithms of each, the new one against the spread of the earlier ones, Student's t for one more
value. Attempts of one run share a machine's mood, so the first alone would call every
bad day a regression. What was seen between two bounds only is ranked by what is sure (Gehan 1965).

Larger is worse in every figure. Family-wise error: Holm 1979. ``docs/gate.md`` has what all this
was found to be worth.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from migrate.errors import extra
from migrate.statistics.spread import Span, spread

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Result = Literal["worse", "better", "no change found", "below the floor", "can't tell"]
Unit = Literal["run", "attempt"]

LEAST_RUNS = 3
"""Fewer runs have no spread worth the name."""
REFINED = 0.1
"""From here on down a p is made exact."""
AFFORDABLE = 5e6
"""Additions that an exact p may take, some milliseconds; beyond, the normal
approximation has to do."""
MOST = 60
"""So many attempts, or runs, are the most that anyone is told to make."""


@dataclass(frozen=True, slots=True)
class Rules:
    """``alpha``: family-wise, of all calls *worse*, and as much of all calls *better*.

    A change is none below ``relative`` of the baseline's median, or ``least`` in the figure's unit,
    or the meter's own error. ``unit`` ``attempt`` takes runs to be all alike. Who would not find a
    change of ``blind``, 1 is a doubling, can't tell that there is none.
    """

    alpha: float = 0.05
    relative: float = 0.1
    least: float = 5.0
    unit: Unit = "run"
    blind: float = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure of one case: a Span for each attempt, None if it was not measured.

    In the floor: from 0 to the floor. At least: up to infinity, and ranked above all else.
    ``rate``: 1 for an attempt that failed, 0 for one that passed; means in place of medians, no
    floor. ``error``: what one value may be off.
    """

    case: str
    figure: str
    earlier: tuple[tuple[Span | None, ...], ...]
    """Run by run."""
    new: tuple[Span | None, ...]
    error: float = 0.0
    rate: bool = False


@dataclass(frozen=True, slots=True)
class Compared:
    """What came out. ``change``: the least that the difference of the medians can be.

    ``low`` to ``high``: 95 % interval of it, of this comparison alone. ``superiority``: of a new
    attempt and an earlier one, how often the new one is larger; ties count half. ``p`` is of one
    side, the one that the tests lean to; ``adjusted`` is Holm's. ``finds``: a change, as a share of
    the baseline, that has even chances to be called one. None: could not be had.
    """

    case: str
    figure: str
    result: Result
    why: str
    runs: int
    n_earlier: int
    n_new: int
    missing_earlier: int
    missing_new: int
    median_earlier: Span | None = None
    median_new: Span | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    superiority: float | None = None
    p: float | None = None
    adjusted: float | None = None
    floor: float | None = None
    finds: float | None = None
    rate: bool = False


def gate(samples: Sequence[Sample], rules: Rules) -> tuple[Compared, ...]:
    """Every sample judged, in one family."""
    known = [_Known(sample) for sample in samples]
    tested = [one for one in known if one.enough(rules.unit)]
    sides = [one.p_values(rules.unit) for one in tested]
    worse = holm([side[0] for side in sides])
    better = holm([side[1] for side in sides])
    found = dict(zip(map(id, tested), zip(sides, worse, better, strict=True), strict=True))
    target = rules.alpha / max(1, len(tested))
    return tuple(_judged(one, found.get(id(one)), rules, target) for one in known)


def exit_code(found: Sequence[Compared]) -> int:
    """1: something is worse; 0: nothing is, as far as can be told; 3: nothing could be told."""
    if any(one.result == "worse" for one in found):
        return 1
    return 0 if any(one.result != "can't tell" for one in found) else 3


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p values: at most alpha where Holm's step-down rejects at alpha."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, most = [0.0] * len(values), 0.0
    for place, index in enumerate(order):
        most = max(most, min(1.0, (len(values) - place) * values[index]))
        adjusted[index] = most
    return adjusted


# --- the two tests --------------------------------------------------------------------------------


def p_values(
    low: Floats, high: Floats, sizes: Sequence[int], unit: Unit = "run", *, rate: bool = False
) -> Floats:
    """That the last run is worse, and that it is better: the larger p of both tests.

    ``low`` and ``high`` have attempts on their last axis, run after run of ``sizes``, the new run
    last; what other axes they have, the two p values come on a last one beside them.
    """
    n, shape = sizes[-1], low.shape[:-1]
    low, high = (np.reshape(values, (-1, sum(sizes))) for values in (low, high))
    ranks = np.array([doubled_ranks(*row) for row in zip(low, high, strict=True)])
    runs = np.zeros((len(ranks), 2))
    if unit == "run":
        numbers = levelled(low, high, rate=rate)
        *earlier, new = np.split(numbers, np.cumsum(sizes[:-1]), axis=1)
        runs = by_runs(earlier, new, rate=rate)
    attempts = by_attempts(ranks, n)
    for row, side in np.argwhere(np.maximum(attempts, runs) <= REFINED):
        lean = -ranks[row] if side else ranks[row]
        if _price(lean, n) <= AFFORDABLE:
            attempts[row, side] = exact(lean, n)
    return np.maximum(attempts, runs).reshape((*shape, 2))


def levelled(low: Floats, high: Floats, *, rate: bool) -> Floats:
    """What the runs' test takes for values: plain numbers, logarithms of times.

    In the floor is taken to be at the floor, and at least to be that: the ranks judge what can't
    be known of it.
    """
    plain = np.where(np.isinf(high), low, high)
    return plain if rate else np.log1p(plain)


def doubled_ranks(low: Floats, high: Floats) -> Ints:
    """Twice the rank of each among all: one more for each that is surely less, one less for each
    that is surely more. Twice the midranks where each is known exactly."""
    low = np.where(np.isinf(high), np.inf, low)
    less = np.searchsorted(np.sort(high), low, "left")
    more = len(low) - np.searchsorted(np.sort(low), high, "right")
    return np.asarray(less - more + len(low) + 1, dtype=np.int64)


def _special() -> Any:
    """The tails of distributions, for arrays."""
    with extra("gate", "compare runs"):
        from scipy import special  # noqa: PLC0415  it takes long to import
    return special


def by_attempts(ranks: Ints, n: int) -> Floats:
    """p that the last ``n`` of each row are so high, and so low: the sum's normal approximation."""
    total = ranks.shape[-1]
    spreads = np.sqrt(ranks.var(axis=-1) * n * (total - n) / max(1, total - 1))
    off = ranks[..., -n:].sum(axis=-1) - n * (total + 1)
    z = _over(np.stack([off, -off], axis=-1) - 1, spreads[..., None])
    return np.asarray(np.where(spreads[..., None] > 0, _special().ndtr(-z), 1.0))


def _over(top: Floats, bottom: Floats) -> Floats:
    """Without a width, nothing is off by nothing, and anything else by infinitely much."""
    bottom = np.broadcast_to(bottom, top.shape)
    endless = np.where(top == 0, 0.0, np.copysign(np.inf, top))
    return np.divide(top, bottom, out=endless, where=bottom > 0)


def exact(ranks: Ints, n: int) -> float:
    """p that the last ``n`` have so high a sum, over all ways to choose as many of all."""
    if 2 * n > len(ranks):  # the others' sum is as low then, and they are fewer
        return exact(-ranks[::-1], len(ranks) - n)
    below = _below(ranks)
    size = int(below[-n:].sum()) + 1
    ways = np.zeros((n + 1, size))
    ways[0, 0] = 1
    for one in below[below < size]:
        ways[1:, one:] += ways[:-1, : size - one].copy()
    return float(ways[n].sum() / math.comb(len(ranks), n))


def _below(ranks: Ints) -> Ints:
    """How far below the highest, in units of what all have in common: small where p is."""
    below = ranks.max() - ranks
    return np.asarray(below // (np.gcd.reduce(below) or 1), dtype=np.int64)


def _price(ranks: Ints, n: int) -> float:
    """Additions that :func:`exact` takes, at most."""
    if 2 * n > len(ranks):
        return _price(-ranks[::-1], len(ranks) - n)
    if math.comb(len(ranks), n).bit_length() > sys.float_info.max_exp:
        return math.inf  # more ways than a float can count
    return float(n * len(ranks) * (_below(ranks)[-n:].sum() + 1))


@dataclass(frozen=True, slots=True)
class Runs:
    """Earlier runs by their levels: how these differ, and how the attempts of one run do.

    ``between`` is the variance of the levels, ``within`` of the attempts of a run, ``each`` how
    many a run has: their harmonic mean.
    """

    number: int
    between: Floats
    within: Floats
    each: float

    def width(self, n: int) -> Floats:
        """By so much the level of one more run, of ``n`` attempts, is off the others' middle.

        Of fewer attempts than they have, its level is wider by what attempts differ; of more it is
        taken to be as wide.
        """
        fewer = max(0.0, 1 / n - 1 / self.each)
        return np.sqrt(self.between * (1 + 1 / self.number) + self.within * fewer)

    def as_if(self, number: int, each: int) -> Runs:
        """What they would be like if they were more, or of more attempts."""
        apart = np.maximum(0.0, self.between - self.within / self.each)
        return Runs(number, apart + self.within / each, self.within, each)

    def found(self, n: int, target: float) -> float:
        """The change of the level whose p is ``target``: half of such changes look larger."""
        return float(_special().stdtrit(self.number - 1, 1 - target) * self.width(n))


def level(values: Floats, *, rate: bool) -> Floats:
    """The mean without a fifth at either end (Tukey and McLaughlin 1963): outliers don't count.

    A rate is a mean of all: what fails now and then would be an outlier.
    """
    size = values.shape[-1]
    cut = 0 if rate else size // 5
    return np.asarray(np.sort(values)[..., cut : size - cut].mean(axis=-1))


def runs_of(earlier: Sequence[Floats], new: Floats, *, rate: bool) -> Runs:
    """Of at least two runs, attempts on the last axis."""
    every = [*earlier, new]
    free = sum(run.shape[-1] - 1 for run in every)
    within = sum(run.var(axis=-1) * run.shape[-1] for run in every) / max(1, free)
    each = len(earlier) / sum(1 / run.shape[-1] for run in earlier)
    levels = np.stack([level(run, rate=rate) for run in earlier], axis=-1)
    return Runs(len(earlier), levels.var(axis=-1, ddof=1), within, each)


def by_runs(earlier: Sequence[Floats], new: Floats, *, rate: bool) -> Floats:
    """p that one more run has so high, and so low, a level, from the spread of the others'."""
    width = runs_of(earlier, new, rate=rate).width(new.shape[-1])
    middle = np.mean([level(run, rate=rate) for run in earlier], axis=0)
    off = level(new, rate=rate) - middle
    t = _over(np.stack([-off, off], axis=-1), width[..., None])
    # Without any spread and any difference there is nothing that speaks against it.
    return np.asarray(np.where(np.isinf(t) | (t != 0), _special().stdtr(len(earlier) - 1, t), 1.0))


def needed(of: Runs, n: int, target: float, ratio: float) -> str:
    """What it takes to find a change of ``ratio``, of logarithms: attempts a run, or else runs."""
    for more in range(n + 1, MOST + 1):
        each = max(round(of.each), more)
        if of.as_if(of.number, each).found(more, target) <= ratio:
            return f"{more} attempts of each run needed"
    for more in range(of.number + 1, MOST + 1):
        if of.as_if(more, max(1, round(of.each))).found(n, target) <= ratio:
            return f"{more} baseline runs needed"
    return f"more than {MOST} attempts or baseline runs needed: runs differ too much"


# --- one figure -----------------------------------------------------------------------------------


class _Known:
    """What was measured of a sample: arrays of least and most; without runs that have nothing."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        runs = [_bounds(run) for run in sample.earlier]
        self.runs = [run for run in runs if run.shape[1]]
        self.new = _bounds(sample.new)
        self.before = np.concatenate([*self.runs, np.empty((2, 0))], axis=1)
        self.n = int(self.new.shape[1])
        self.low, self.high = np.concatenate([self.before, self.new], axis=1)
        self.ranks = doubled_ranks(self.low, self.high)

    def enough(self, unit: Unit) -> bool:
        """Whether there is anything to test, whatever the values are."""
        return bool(self.n) and len(self.runs) >= (LEAST_RUNS if unit == "run" else 1)

    @property
    def least(self) -> float:
        """The least p that ranks can give: all that is new above all else."""
        return 1 / math.comb(self.n + int(self.before.shape[1]), self.n)

    def p_values(self, unit: Unit) -> tuple[float, float]:
        """That it is worse, and that it is better."""
        sizes = [run.shape[1] for run in (*self.runs, self.new)]
        worse, better = p_values(self.low, self.high, sizes, unit, rate=self.sample.rate)
        return float(worse), float(better)

    def as_runs(self) -> Runs:
        """How the earlier runs differ."""
        *earlier, new = (levelled(*run, rate=self.sample.rate) for run in (*self.runs, self.new))
        return runs_of(earlier, new, rate=self.sample.rate)

    def lacking(self, rules: Rules, target: float) -> str:
        """What keeps it from telling; empty if nothing does. ``target``: a p that is a call."""
        if not self.n or not self.runs:
            return f"not measured in {'the baseline' if self.n else 'this run'}"
        if not self.enough(rules.unit):
            return f"{len(self.runs)} baseline runs, at least {LEAST_RUNS} needed"
        if self.least > target:
            more = next(n for n in itertools.count(self.n) if self._least_of(n) <= target)
            return f"{self.n} attempt{'s' * (self.n > 1)}, {more} needed"
        blind = math.log1p(rules.blind)
        if self.sample.rate or rules.unit == "attempt" or (self.found(target) <= rules.blind):
            return ""
        said = needed(self.as_runs(), self.n, target, blind)
        return f"blind below {self.found(target):+.0%}: {said}"

    def _least_of(self, n: int) -> float:
        """With as many attempts in each run."""
        return 1 / math.comb(n + max(int(self.before.shape[1]), n * len(self.runs)), n)

    def found(self, target: float) -> float:
        """A change with even chances to be called one, as a share of the baseline: 0.5, half more.

        Of the level, and as far as the runs' test goes."""
        return math.expm1(min(9.0, self.as_runs().found(self.n, target)))

    @property
    def superiority(self) -> float:
        """Mann and Whitney's U by the number of pairs."""
        u = float(self.ranks[-self.n :].sum()) / 2 - self.n * (self.n + 1) / 2
        return u / (self.n * int(self.before.shape[1]))

    def middle(self, of: Floats) -> Span:
        """The least and the most that the median, or the rate, can be."""
        low, high = of.mean(axis=1) if self.sample.rate else np.median(of, axis=1)
        return float(low), float(high)

    def interval(self, unit: Unit) -> Span:
        """Of the change: 95 %, and no less wide for what was seen between bounds only."""
        if self.sample.rate:
            return _newcombe(self.before[0], self.new[0])
        before, new = self.middle(self.before), self.middle(self.new)
        if unit == "attempt":
            ways = [
                (spread(a), spread(b)) for a, b in zip(self.new, self.before[::-1], strict=True)
            ]
            (a, b), (c, d) = ways
            return _minus(a.low, b.high, -math.inf), _minus(c.high, d.low, math.inf)
        return (
            new[0] - before[1] - self._half(1),
            new[1] - before[0] + self._half(0),
        )

    def _half(self, bound: int) -> float:
        """Student's, from the spread of the earlier runs' medians."""
        medians = np.array([np.median(run[bound]) for run in self.runs])
        if np.isinf(medians).any():
            return math.inf
        each = int(self.before.shape[1]) / len(medians)
        wide = max(1.0, each / self.n) + 1 / len(medians)
        return float(_special().stdtrit(len(medians) - 1, 0.975) * medians.std(ddof=1) * wide**0.5)


def _bounds(of: Sequence[Span | None]) -> Floats:
    return np.array([one for one in of if one is not None], dtype=np.float64).reshape(-1, 2).T


def _minus(a: float | None, b: float | None, otherwise: float) -> float:
    return otherwise if a is None or b is None else a - b


def _newcombe(before: Floats, new: Floats) -> Span:
    """Newcombe 1998, method 10: of a difference of rates, from Wilson's interval of each."""
    (p, p_low, p_high), (q, q_low, q_high) = _wilson(new), _wilson(before)
    return p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low)


def _wilson(of: Floats) -> tuple[float, float, float]:
    z, n, p = 1.959964, len(of), float(of.mean())
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _judged(one: _Known, found: Any, rules: Rules, target: float) -> Compared:
    sample, before = one.sample, one.before.shape[1]
    tried = sum(map(len, sample.earlier))
    facts: dict[str, Any] = {
        "case": sample.case,
        "figure": sample.figure,
        "runs": len(one.runs),
        "n_earlier": before,
        "n_new": one.n,
        "missing_earlier": tried - before,
        "missing_new": len(sample.new) - one.n,
        "rate": sample.rate,
        "median_earlier": one.middle(one.before) if before else None,
        "median_new": one.middle(one.new) if one.n else None,
    }
    if found is None:
        return Compared(result="can't tell", why=one.lacking(rules, target), **facts)
    (p_worse, p_better), worse, better = found
    old, new = facts["median_earlier"], facts["median_new"]
    least, most = new[0] - old[1], new[1] - old[0]
    up = p_worse <= p_better
    change = max(0.0, least) if up else min(0.0, most)
    floor = 0.0 if sample.rate else max(sample.error, rules.least, rules.relative * old[0])
    low, high = one.interval(rules.unit)
    facts |= {
        "change": change,
        "low": None if math.isnan(low) else low,
        "high": None if math.isnan(high) else high,
        "superiority": one.superiority,
        "p": min(p_worse, p_better),
        "adjusted": worse if up else better,
        "floor": floor,
    }
    if not sample.rate and rules.unit == "run":
        facts["finds"] = one.found(target)
    if facts["adjusted"] <= rules.alpha:
        if abs(change) < floor or not change:
            return Compared(result="below the floor", why="", **facts)
        return Compared(result="worse" if up else "better", why="", **facts)
    why = one.lacking(rules, target)
    return Compared(result="can't tell" if why else "no change found", why=why, **facts)
