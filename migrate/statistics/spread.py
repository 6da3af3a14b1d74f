"""Spreads of few, skewed values: medians with order-statistic intervals, never means.

The interval of a median needs no distribution: it runs from one sorted value to another, and its
level follows from the binomial distribution alone. Few values can't reach 95 %: with five, minimum
to maximum covers the median at 93.75 %; the level that was reached is part of the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Spread:
    """The spread of ``n`` values in their unit; ``missing`` were not measured and do not count.

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
    values_given = list(values)
    known = sorted(float(value) for value in values_given if value is not None)
    n, missing = len(known), len(values_given) - len(known)
    if not known:
        return Spread(0, missing)
    middle, least, most = float(np.median(known)), known[0], known[-1]
    if n == 1:
        return Spread(n, missing, middle, minimum=least, maximum=most)
    low, high, reached = _median_interval(known, level)
    return Spread(n, missing, middle, low, high, reached, least, most)


def _median_interval(known: Sequence[float], level: float) -> tuple[float, float, float]:
    """Ends of the interval of sorted values, and the level reached, which equal values raise."""
    n = len(known)
    cut = _cut(n, level)
    low, high = known[cut], known[-1 - cut]
    below, above = known.index(low), known[::-1].index(high)
    return low, high, 1 - _up_to(below, n) - _up_to(above, n)


@cache
def _cut(n: int, level: float) -> int:
    """How many of ``n`` values to leave out at either end; 0 where ``n`` is too few."""
    rest = (1 - Fraction(level)) / 2 * 2**n
    within = itertools.takewhile(lambda ways: ways <= rest, itertools.accumulate(_ways(n)))
    return max(0, sum(1 for _ in within) - 1)


@cache
def _up_to(most: int, n: int) -> float:
    """The probability that at most ``most`` of ``n`` values are below the median."""
    return sum(itertools.islice(_ways(n), most + 1)) / (1 << n)


def _ways(n: int) -> Iterator[int]:
    """Binomial coefficients of ``n``, in order, each from the one before: ``n`` may be large."""
    ways = 1
    for number in range(n + 1):
        yield ways
        ways = ways * (n - number) // (number + 1)


@dataclass(frozen=True, slots=True)
class MeterErrors:
    """Errors of a meter against the truth, ``measured - injected``, in the unit of both.

    ``median`` has its sign (a bias), ``p95`` is of the absolute errors. ``missed`` were injected
    and not measured at all; they are in no figure, so look at them first.
    """

    n: int
    missed: int
    median: float | None = None
    p95: float | None = None


def meter_errors(measured: Sequence[float | None], injected: Sequence[float]) -> MeterErrors:
    """The errors of measured values, pair by pair. ValueError if the two differ in length."""
    pairs = list(zip(measured, injected, strict=True))
    errors = np.array([value - truth for value, truth in pairs if value is not None])
    missed = len(pairs) - len(errors)
    if not len(errors):
        return MeterErrors(0, missed)
    p95 = float(np.percentile(np.abs(errors), 95))
    return MeterErrors(len(errors), missed, float(np.median(errors)), p95)
