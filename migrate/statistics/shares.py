"""Shares of counted things, with the error that the count leaves: no distribution but the binomial.

Wilson's score interval (JASA 22, 1927), which holds for few and for none; for the difference of two
shares Newcombe's hybrid of it (Statistics in Medicine 17, 1998, method 10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Z = 2.576
"""99 % of a normal distribution lie within so many deviations."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share, or a difference of two, and the ends between which it lies at 99 %."""

    value: float
    low: float
    high: float


def share(hits: int, of: int) -> Share:
    """``hits`` of so many; of none it may be anything."""
    if not of:
        return Share(0.0, 0.0, 1.0)
    value, weight = hits / of, Z * Z / of
    middle = (value + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (value * (1 - value) + weight / 4)) / (1 + weight)
    return Share(value, max(0.0, middle - half), min(1.0, middle + half))


def difference(more: Share, less: Share) -> Share:
    """By how much the first share is larger; negative: it is smaller."""
    value = more.value - less.value
    below = math.hypot(more.value - more.low, less.high - less.value)
    above = math.hypot(more.high - more.value, less.value - less.low)
    return Share(value, max(-1.0, value - below), min(1.0, value + above))
