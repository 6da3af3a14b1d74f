"""Whether a run is worse than earlier ones: ranks for skewed and censored values, runs as units.

Two tests must both speak against a run (:mod:`migrate.statistics.significance`). Attempts of one
run share a machine's mood, so the attempts' test alone would call every bad day a regression.

Larger is worse in every figure. ``docs/gate.md`` has how well all this was found to work.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from migrate.statistics.censored import Interval
from migrate.statistics.significance import (
    Floats,
    RunSpread,
    Unit,
    doubled_ranks,
    holm,
    needed_to_find,
    p_values,
    run_levels,
    run_spread,
    tail_functions,
)
from migrate.statistics.spread import spread

ComparisonResult = Literal["worse", "better", "no change found", "below the floor", "can't tell"]

LEAST_RUNS = 3
"""Fewer runs have no spread worth the name."""


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
class FigureSample:
    """One figure of one case: an interval for each attempt, None if it was not measured.

    In the floor: from 0 to the floor. At least: up to infinity, and ranked above all else.
    ``rate``: 1 for an attempt that failed, 0 for one that passed; means in place of medians, no
    floor. ``error``: what one value may be off.
    """

    case: str
    figure: str
    earlier: tuple[tuple[Interval | None, ...], ...]
    """The attempts of earlier runs, run by run."""
    new: tuple[Interval | None, ...]
    error: float = 0.0
    rate: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result for one sample. ``change``: the least that the medians' difference can be.

    ``low`` to ``high``: 95 % interval of it, of this comparison alone. ``superiority``: of a new
    attempt and an earlier one, how often the new one is larger; ties count half. ``p`` is of one
    side, the one that the tests lean to; ``adjusted`` is Holm's. ``finds``: a change, as a share of
    the baseline, that has even chances to be called one. None: not available.
    """

    case: str
    figure: str
    result: ComparisonResult
    why: str
    runs: int
    n_earlier: int
    n_new: int
    missing_earlier: int
    missing_new: int
    median_earlier: Interval | None = None
    median_new: Interval | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    superiority: float | None = None
    p: float | None = None
    adjusted: float | None = None
    floor: float | None = None
    finds: float | None = None
    rate: bool = False


def compare(samples: Sequence[FigureSample], rules: Rules) -> tuple[Comparison, ...]:
    """Compare the new run with the earlier ones sample by sample, as one family of tests."""
    all_bounds = [_Bounds(sample) for sample in samples]
    tested = [bounds for bounds in all_bounds if bounds.testable(rules.unit)]
    sides = [bounds.p_values(rules.unit) for bounds in tested]
    worse = holm([side[0] for side in sides])
    better = holm([side[1] for side in sides])
    p_values = dict(zip(map(id, tested), zip(sides, worse, better, strict=True), strict=True))
    target = rules.alpha / max(1, len(tested))
    return tuple(_assess(bounds, p_values.get(id(bounds)), rules, target) for bounds in all_bounds)


def exit_code(comparisons: Sequence[Comparison]) -> int:
    """1: a figure is worse; 0: none is known to be; 3: nothing could be compared."""
    if any(comparison.result == "worse" for comparison in comparisons):
        return 1
    return 0 if any(comparison.result != "can't tell" for comparison in comparisons) else 3


# --- one figure -----------------------------------------------------------------------------------


class _Bounds:
    """A sample's values as arrays of lower and upper bounds; without runs that have none."""

    def __init__(self, sample: FigureSample) -> None:
        self.sample = sample
        runs = [_as_rows(run) for run in sample.earlier]
        self.runs = [run for run in runs if run.shape[1]]
        self.new = _as_rows(sample.new)
        self.before = np.concatenate([*self.runs, np.empty((2, 0))], axis=1)
        self.n = int(self.new.shape[1])
        self.low, self.high = np.concatenate([self.before, self.new], axis=1)
        self.ranks = doubled_ranks(self.low, self.high)

    def testable(self, unit: Unit) -> bool:
        """Whether there is enough to test, whatever the values are."""
        return bool(self.n) and len(self.runs) >= (LEAST_RUNS if unit == "run" else 1)

    @property
    def least(self) -> float:
        """The least p that ranks can give: every new attempt above all earlier ones."""
        return 1 / math.comb(self.n + int(self.before.shape[1]), self.n)

    def p_values(self, unit: Unit) -> tuple[float, float]:
        """p that the new run is worse, and that it is better."""
        sizes = [run.shape[1] for run in (*self.runs, self.new)]
        worse, better = p_values(self.low, self.high, sizes, unit, rate=self.sample.rate)
        return float(worse), float(better)

    def run_spread(self) -> RunSpread:
        """How the earlier runs differ from each other."""
        *earlier, new = (run_levels(*run, rate=self.sample.rate) for run in (*self.runs, self.new))
        return run_spread(earlier, new, rate=self.sample.rate)

    def why_inconclusive(self, rules: Rules, target: float) -> str:
        """Why nothing can be concluded; empty if it can. ``target``: a p that is a call."""
        if not self.n or not self.runs:
            return f"not measured in {'the baseline' if self.n else 'this run'}"
        if not self.testable(rules.unit):
            return f"{len(self.runs)} baseline runs, at least {LEAST_RUNS} needed"
        if self.least > target:
            more = next(n for n in itertools.count(self.n) if self._least_of(n) <= target)
            return f"{self.n} attempt{'s' * (self.n > 1)}, {more} needed"
        blind = math.log1p(rules.blind)
        if (
            self.sample.rate
            or rules.unit == "attempt"
            or (self.detectable_change(target) <= rules.blind)
        ):
            return ""
        needed = needed_to_find(self.run_spread(), self.n, target, blind)
        return f"blind below {self.detectable_change(target):+.0%}: {needed}"

    def _least_of(self, n: int) -> float:
        """:attr:`least` with ``n`` attempts in each run."""
        return 1 / math.comb(n + max(int(self.before.shape[1]), n * len(self.runs)), n)

    def detectable_change(self, target: float) -> float:
        """A change with even chances to be called one, as a share of the baseline: 0.5, half more.

        Of the level, and as far as the runs' test goes."""
        return math.expm1(min(9.0, self.run_spread().detectable_change(self.n, target)))

    @property
    def superiority(self) -> float:
        """Mann and Whitney's U by the number of pairs."""
        u = float(self.ranks[-self.n :].sum()) / 2 - self.n * (self.n + 1) / 2
        return u / (self.n * int(self.before.shape[1]))

    def middle(self, rows: Floats) -> Interval:
        """The least and the most that the median, or the rate, can be."""
        low, high = rows.mean(axis=1) if self.sample.rate else np.median(rows, axis=1)
        return float(low), float(high)

    def interval(self, unit: Unit) -> Interval:
        """95 % interval of the change; no narrower for values known between bounds only."""
        if self.sample.rate:
            return _newcombe(self.before[0], self.new[0])
        before, new = self.middle(self.before), self.middle(self.new)
        if unit == "attempt":
            ways = [
                (spread(a), spread(b)) for a, b in zip(self.new, self.before[::-1], strict=True)
            ]
            (a, b), (c, d) = ways
            return _difference(a.low, b.high, -math.inf), _difference(c.high, d.low, math.inf)
        return (
            new[0] - before[1] - self._half(1),
            new[1] - before[0] + self._half(0),
        )

    def _half(self, bound: int) -> float:
        """Half of Student's interval, from the spread of the earlier runs' medians."""
        medians = np.array([np.median(run[bound]) for run in self.runs])
        if np.isinf(medians).any():
            return math.inf
        each = int(self.before.shape[1]) / len(medians)
        wide = max(1.0, each / self.n) + 1 / len(medians)
        return float(
            tail_functions().stdtrit(len(medians) - 1, 0.975) * medians.std(ddof=1) * wide**0.5
        )


def _as_rows(values: Sequence[Interval | None]) -> Floats:
    return (
        np.array([value for value in values if value is not None], dtype=np.float64)
        .reshape(-1, 2)
        .T
    )


def _difference(a: float | None, b: float | None, otherwise: float) -> float:
    return otherwise if a is None or b is None else a - b


def _newcombe(before: Floats, new: Floats) -> Interval:
    """Newcombe 1998, method 10: of a difference of rates, from Wilson's interval of each."""
    (p, p_low, p_high), (q, q_low, q_high) = _wilson(new), _wilson(before)
    return p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low)


def _wilson(values: Floats) -> tuple[float, float, float]:
    z, n, p = 1.959964, len(values), float(values.mean())
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _assess(bounds: _Bounds, p_values: Any, rules: Rules, target: float) -> Comparison:
    sample, before = bounds.sample, bounds.before.shape[1]
    tried = sum(map(len, sample.earlier))
    facts: dict[str, Any] = {
        "case": sample.case,
        "figure": sample.figure,
        "runs": len(bounds.runs),
        "n_earlier": before,
        "n_new": bounds.n,
        "missing_earlier": tried - before,
        "missing_new": len(sample.new) - bounds.n,
        "rate": sample.rate,
        "median_earlier": bounds.middle(bounds.before) if before else None,
        "median_new": bounds.middle(bounds.new) if bounds.n else None,
    }
    if p_values is None:
        return Comparison(result="can't tell", why=bounds.why_inconclusive(rules, target), **facts)
    (p_worse, p_better), worse, better = p_values
    old, new = facts["median_earlier"], facts["median_new"]
    least, most = new[0] - old[1], new[1] - old[0]
    up = p_worse <= p_better
    change = max(0.0, least) if up else min(0.0, most)
    floor = 0.0 if sample.rate else max(sample.error, rules.least, rules.relative * old[0])
    low, high = bounds.interval(rules.unit)
    facts |= {
        "change": change,
        "low": None if math.isnan(low) else low,
        "high": None if math.isnan(high) else high,
        "superiority": bounds.superiority,
        "p": min(p_worse, p_better),
        "adjusted": worse if up else better,
        "floor": floor,
    }
    if not sample.rate and rules.unit == "run":
        facts["finds"] = bounds.detectable_change(target)
    if facts["adjusted"] <= rules.alpha:
        if abs(change) < floor or not change:
            return Comparison(result="below the floor", why="", **facts)
        return Comparison(result="worse" if up else "better", why="", **facts)
    why = bounds.why_inconclusive(rules, target)
    return Comparison(result="can't tell" if why else "no change found", why=why, **facts)
