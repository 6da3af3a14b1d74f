"""Spreads of few, skewed values: medians with order-statistic intervals, never means.

The interval of a median needs no distribution: it runs from one sorted value to another, and its
level follows from the binomial distribution alone. Few values can't reach 95 %: with five, minimum
to maximum covers the median at 93.75 %; the level that was reached is part of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Spread:
    """Of ``n`` values in their own unit; ``missing`` were not measured and count nowhere else.

    ``low`` to ``high`` covers the median at ``level``; None where there are too few values: none
    at all for the median and the extremes, fewer than two for the interval.
    """

    n: int
    missing: int
    median: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    minimum: float | None = None
    maximum: float | None = None


def spread(values: Iterable[float | None], level: float = LEVEL) -> Spread:
    """Median, its interval at ``level`` or the best that so few can give, and the extremes."""
    given = list(values)
    known = sorted(float(value) for value in given if value is not None)
    n, missing = len(known), len(given) - len(known)
    if not known:
        return Spread(0, missing)
    middle, least, most = float(np.median(known)), known[0], known[-1]
    if n == 1:
        return Spread(n, missing, middle, minimum=least, maximum=most)
    low, high, reached = _interval(known, level)
    return Spread(n, missing, middle, low, high, reached, least, most)


def _interval(known: Sequence[float], level: float) -> tuple[float, float, float]:
    """Sorted values in; scipy's quantile test gives the ends, the binomial the level reached."""
    from scipy import stats  # noqa: PLC0415  it takes half a second to import

    n = len(known)
    best = 1 - 2 * 0.5**n
    if best <= level:
        return known[0], known[-1], best
    interval = stats.quantile_test(known, q=known[0], p=0.5).confidence_interval(level)
    low, high = float(interval.low), float(interval.high)
    below, above = known.index(low), known[::-1].index(high)
    reached = 1 - float(stats.binom.cdf(below, n, 0.5)) - float(stats.binom.cdf(above, n, 0.5))
    return low, high, reached


def indistinguishable(a: Spread, b: Spread, error: float = 0.0) -> bool:
    """Whether the two may not be ranked: their intervals touch, given the error of each value.

    A spread without an interval can't be ranked against anything.
    """
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return True
    return a.low - error <= b.high + error and b.low - error <= a.high + error


@dataclass(frozen=True, slots=True)
class Errors:
    """Of a meter against the truth, ``measured - injected``, in the unit of both.

    ``median`` has its sign (a bias), ``p95`` is of the absolute errors. ``missed`` were injected
    and not measured at all; they are in no figure, so look at them first.
    """

    n: int
    missed: int
    median: float | None = None
    p95: float | None = None


def errors(measured: Sequence[float | None], injected: Sequence[float]) -> Errors:
    """Pair by pair. Raises ValueError if the two differ in length."""
    pairs = list(zip(measured, injected, strict=True))
    found = np.array([value - truth for value, truth in pairs if value is not None])
    missed = len(pairs) - len(found)
    if not len(found):
        return Errors(0, missed)
    p95 = float(np.percentile(np.abs(found), 95))
    return Errors(len(found), missed, float(np.median(found)), p95)
