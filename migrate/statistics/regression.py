"""Whether a run is worse than earlier ones: ranks for skewed and censored values, runs as units.

Two tests must both speak against a run (:mod:`migrate.statistics.significance`). Attempts of one
run share a machine's mood, so the attempts' test alone would call every bad day a regression.

Larger is worse in every figure. What is known between bounds only is never taken for either bound,
and where a run could be much worse for all that is known, nobody can tell. How well all this was
found to work: ``docs/how-the-gate-judges.md``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from migrate.statistics.censored import Interval
from migrate.statistics.comparison import (
    NOTHING_ALLOWED,
    Allowance,
    Comparison,
    ComparisonResult,
    FigureSample,
    Rules,
)
from migrate.statistics.significance import (
    Floats,
    RunSpread,
    Unit,
    detectable_rate,
    doubled_ranks,
    holm,
    needed_to_find,
    newcombe,
    p_values,
    run_levels,
    run_spread,
    tail_functions,
    trimmed_mean,
)
from migrate.statistics.spread import spread

MOST_GROWTH = 100.0
"""A logarithm of a ratio from which on there is no upper end."""
LEAST_RUNS = 3
"""Fewer runs have no spread worth the name."""


def compare(samples: Sequence[FigureSample], rules: Rules) -> tuple[Comparison, ...]:
    """Compare the new run with the earlier ones sample by sample, as one family of tests."""
    all_bounds = [_Bounds(sample) for sample in samples]
    tested = [bounds for bounds in all_bounds if bounds.testable(rules.unit)]
    sides = [bounds.p_values(rules.unit) for bounds in tested]
    adjusted = [holm([side[number] for side in sides]) for number in (0, 1)]
    family = _Family(
        len(tested),
        *(rules.alpha / max(1, sum(p > rules.alpha for p in of_side)) for of_side in adjusted),
    )
    results = dict(zip(map(id, tested), zip(sides, *adjusted, strict=True), strict=True))
    return tuple(_assess(bounds, results.get(id(bounds)), rules, family) for bounds in all_bounds)


def exit_code(comparisons: Sequence[Comparison], allowed: Allowance = NOTHING_ALLOWED) -> int:
    """1: a figure is worse; 5: an attempt of the run can't be read; 3: it can't be told of a figure
    or a case, or nothing could be compared; 0: none is known to be worse, and all could be told."""
    results = {comparison.result for comparison in comparisons if not allowed.covers(comparison)}
    for result, code in (("worse", 1), ("unreadable", 5), ("no attempt", 3), ("can't tell", 3)):
        if result in results:
            return code
    untold = {"can't tell", "no attempt", "unreadable"}
    return 0 if any(comparison.result not in untold for comparison in comparisons) else 3


@dataclass(frozen=True, slots=True)
class _Family:
    """How many are tested, and the p from which on Holm calls one worse, or better."""

    size: int
    worse: float
    better: float


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
        enough = len(self.runs) >= (LEAST_RUNS if unit == "run" else 1)
        return bool(self.n) and enough and not self.sample.doubt

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

    def why_untested(self) -> str:
        """Why there is no test of it."""
        if not self.sample.earlier:
            return "no earlier run has this case"
        if not self.n or not self.runs:
            return f"not measured in {'the baseline' if self.n else 'this run'}"
        return (
            self.sample.doubt
            or f"the baseline has {len(self.runs)} runs, and needs at least {LEAST_RUNS}"
        )

    def why_blind(self, rules: Rules, target: float) -> str:
        """Why a change that matters would not be called; empty if it would, at even chances.

        ``target``: a p that is a call.
        """
        if self.least > target:
            more = next(n for n in itertools.count(self.n) if self._least_of(n) <= target)
            return f"Too few attempts: {self.n}; at least {more} are needed"
        if self.sample.rate:
            return self._why_rate(rules, target)
        blind = math.log1p(rules.blind)
        if rules.unit == "attempt" or self.detectable_change(target) <= rules.blind:
            return ""
        needed = needed_to_find(self.run_spread(), self.n, target, blind)
        noticed = f"only an increase above {100 * self.detectable_change(target):.0f} %"
        return f"Too few attempts: {noticed} would be noticed; {needed}"

    def why_unknown(self, rules: Rules) -> str:
        """Why this run may be much worse, for all that its values and the baseline's let know."""
        before, new = self.middle(self.before), self.middle(self.new)
        if self.sample.rate or (before[0] == before[1] and new[0] == new[1]):
            return ""
        if math.isinf(before[1]):
            return "only a lower bound of the baseline is known"
        if new[1] <= before[1] + max(rules.least, rules.blind * before[1]):
            return ""
        return f"known only between bounds: it may be more than {rules.blind:.0%} longer"

    def _why_rate(self, rules: Rules, target: float) -> str:
        """Why more failures than before are neither called nor none."""
        before, new = float(self.before[0].mean()), float(self.new[0].mean())
        if new <= before:
            return ""
        detected = max(
            detectable_rate(int(self.before[0].sum()), int(self.before.shape[1]), self.n, target),
            before + self.run_spread().detectable_change(self.n, target),
        )
        if detected - before <= rules.blind_rate + 1e-9:
            return ""
        return (
            f"Too few attempts: {new:.0%} of {self.n} failed, and only {min(1.0, detected):.0%} or "
            "more would be noticed"
        )

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

    def interval(self, unit: Unit, family: _Family) -> Interval:
        """The interval of the change, by what the family calls worse at its lower end, and better
        at its upper one; no narrower for values known between bounds only."""
        if self.sample.rate:
            low, high = newcombe(self.before[0], self.new[0], family.worse, family.better)
            if unit == "attempt":
                return low, high
            change = float(self.new[0].mean() - self.before[0].mean())
            return (
                min(low, change - self._half(family.worse)),
                max(high, change + self._half(family.better)),
            )
        before = self.middle(self.before)
        if unit == "attempt":
            level = 1 - 2 * min(family.worse, family.better)
            ways = [
                (spread(a, level), spread(b, level))
                for a, b in zip(self.new, self.before[::-1], strict=True)
            ]
            (a, b), (c, d) = ways
            return _difference(a.low, b.high, -math.inf), _difference(c.high, d.low, math.inf)
        # Of the levels, which are logarithms, as the runs' test is.
        least = self._level(self.new, 0) - self._earlier_level(1) - self._half(family.worse)
        most = self._level(self.new, 1) - self._earlier_level(0) + self._half(family.better)
        return (1 + before[1]) * math.expm1(least), (1 + before[0]) * (
            math.expm1(most) if most < MOST_GROWTH else math.inf
        )

    def _level(self, rows: Floats, end: int) -> float:
        """The level of a run by the lower ends of its values, or the upper ones."""
        return float(trimmed_mean(np.log1p(rows[end]), rate=False))

    def _earlier_level(self, end: int) -> float:
        return float(np.mean([self._level(run, end) for run in self.runs]))

    def _half(self, p: float) -> float:
        """Half of Student's interval of one more run's level, of logarithms but for a rate."""
        student = tail_functions().stdtrit(len(self.runs) - 1, 1 - p)
        return float(student * self.run_spread().width(self.n))


def _as_rows(values: Sequence[Interval | None]) -> Floats:
    return (
        np.array([value for value in values if value is not None], dtype=np.float64)
        .reshape(-1, 2)
        .T
    )


def _difference(a: float | None, b: float | None, otherwise: float) -> float:
    return otherwise if a is None or b is None else a - b


def _assess(
    bounds: _Bounds, tests: tuple[Interval, float, float] | None, rules: Rules, family: _Family
) -> Comparison:
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
    if tests is None:
        return Comparison(result="can't tell", why=bounds.why_untested(), **facts)
    (p_worse, p_better), worse, better = tests
    old, new = facts["median_earlier"], facts["median_new"]
    least, most = new[0] - old[1], new[1] - old[0]
    up = p_worse <= p_better
    change = max(0.0, least) if up else min(0.0, most)
    floor = 0.0 if sample.rate else max(sample.error, rules.least, rules.relative * old[0])
    adjusted = worse if up else better
    low, high = bounds.interval(rules.unit, family)
    if adjusted <= rules.alpha:  # both tests exclude 0, which this interval may just reach over
        low, high = (max(0.0, low), high) if up else (low, min(0.0, high))
    elif sample.rate:  # Fisher's test is exact and does not exclude 0: this interval is not
        low, high = min(0.0, low), max(0.0, high)
    low, high = min(low, change), max(high, change)  # it is of the levels, and not of the medians
    target = rules.alpha / max(1, family.size)
    facts |= {
        "change": change,
        "low": None if math.isnan(low) else low,
        "high": None if math.isnan(high) else high,
        "superiority": bounds.superiority,
        "p": min(p_worse, p_better),
        "adjusted": adjusted,
        "floor": floor,
    }
    if not sample.rate and rules.unit == "run":
        facts["finds"] = bounds.detectable_change(target)
    farthest = most if up else least
    result, why = _result(adjusted <= rules.alpha, (change, farthest), floor, (low, high), up=up)
    blind = False
    if result == "no change found":
        unknown, unseen = bounds.why_unknown(rules), bounds.why_blind(rules, target)
        why = unknown or unseen
        result = "can't tell" if why else result
        blind = bool(unseen) and not unknown and p_worse > rules.alpha
    return Comparison(result=result, why=why, blind=blind, **facts)


def _result(
    certain: bool, change: Interval, floor: float, span: Interval, *, up: bool
) -> tuple[ComparisonResult, str]:
    """What is said of a change, in words that agree with its interval, and why.

    ``change``: the least and the most that it can be, for all that is known of the medians.
    """
    least, most = map(abs, change)
    if certain and (least < floor or not least):
        if most >= floor and most > least:
            words = ("larger", "more") if up else ("smaller", "less")
            return "can't tell", f"certainly {words[0]}, but by how much is not known"
        return "below the floor", ""
    if certain:
        return ("worse" if up else "better"), ""
    if span[0] > 0:
        return "can't tell", "larger by its interval, but not certain by both tests: try again"
    if span[1] < 0:
        return "not worse", "smaller by its interval, but not certain by both tests"
    return "no change found", ""
