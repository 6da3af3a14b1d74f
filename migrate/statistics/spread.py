"""Spreads of few, skewed values: medians with order-statistic intervals, never means.

The interval of a median needs no distribution: it runs from one sorted value to another, and its
level follows from the binomial distribution alone. Few values can't reach 95 %: with five, minimum
to maximum covers the median at 93.75 %; the level that was reached is part of the result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

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
    """Sorted values in; its ends, and the level that they reach, which equal values raise."""
    n = len(known)
    cut = _cut(n, level)
    low, high = known[cut], known[-1 - cut]
    below, above = known.index(low), known[::-1].index(high)
    return low, high, 1 - _up_to(below, n) - _up_to(above, n)


@cache
def _cut(n: int, level: float) -> int:
    """How many of ``n`` values can be left out at either end; of too few for ``level`` none."""
    rest = (1 - Fraction(level)) / 2 * 2**n
    within = itertools.takewhile(lambda ways: ways <= rest, itertools.accumulate(_ways(n)))
    return max(0, sum(1 for _ in within) - 1)


@cache
def _up_to(most: int, n: int) -> float:
    """The chance that of ``n`` values no more than ``most`` are below the median."""
    return sum(itertools.islice(_ways(n), most + 1)) / (1 << n)


def _ways(n: int) -> Iterator[int]:
    """To choose none of ``n``, one, two …; each from the one before, for ``n`` may be large."""
    ways = 1
    for number in range(n + 1):
        yield ways
        ways = ways * (n - number) // (number + 1)


Span = tuple[float, float]
"""From the least to the most that a row's value may be."""


def span(of: Spread, error: float = 0.0) -> Span | None:
    """Its interval, given the error of each value: all that there is without one; None of none."""
    if not of.n:
        return None
    if of.low is None or of.high is None:
        return -math.inf, math.inf
    return of.low - error, of.high + error


def together(spans: Mapping[str, Span]) -> tuple[tuple[str, ...], ...]:
    """The largest sets of two and more whose spans all touch: none in a set may be ranked.

    Touching is no chain: if b touches a and c, but a does not touch c, there are two sets. Spans
    that all touch one another share a point, and it can be the begin of one of them.
    """
    sets = {
        tuple(name for name, (begin, end) in spans.items() if begin <= point <= end)
        for point, _ in spans.values()
    }
    largest = [one for one in sets if not any(set(one) < set(other) for other in sets)]
    order = list(spans)
    return tuple(
        sorted((one for one in largest if len(one) > 1), key=lambda one: [*map(order.index, one)])
    )


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
