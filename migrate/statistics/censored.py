"""Values that are known between two bounds only: their median and quantiles, and their words.

A length is an interval from the least to the most that it can be: an exact one has equal ends, one
in the meter's floor goes from 0 to the floor, one that had not ended has no upper end. Whatever is
made of such values is an interval, too: a quantile grows with each value, so the quantile of the
lower ends and that of the upper ends are the least and the most that it can be, and no less can be
said. An end is never taken for the value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Interval = tuple[float, float]
"""From the least to the most that a value may be."""


def quantile(values: Sequence[Interval], share: float) -> Interval | None:
    """The least and the most that a quantile of the values can be; None: there are none.

    Between two neighbours it is interpolated, as numpy's and duckdb's ``quantile_cont`` do.
    """
    if not values:
        return None
    low, high = (sorted(ends) for ends in zip(*values, strict=True))
    return _at(low, share), _at(high, share)


def median(values: Sequence[Interval]) -> Interval | None:
    """The least and the most that the median can be; None: there are no values."""
    return quantile(values, 0.5)


def _at(ends: list[float], share: float) -> float:
    place = share * (len(ends) - 1)
    below = math.floor(place)
    lower, upper = ends[below], ends[math.ceil(place)]
    if lower == upper or place == below:
        return lower  # also between two infinities
    return lower + (upper - lower) * (place - below)


BELOW_FLOOR = "below floor"
"""In a table: nothing was seen, for it is shorter than the meter can see."""


def below_floor(floor_ms: float) -> str:
    """The same in a sentence, with what the meter can see."""
    return f"below what the meter can see (floor {ms_text(floor_ms)} ms)"


def bounds_text(bounds: Interval, floor: float = 0.0, in_floor: str = BELOW_FLOOR) -> str:
    """Milliseconds that lie between ``bounds``; below ``floor`` nothing is seen.

    ``≥`` stands only where there is no upper end, and ``in_floor`` where all of it is below.
    """
    low, high = bounds
    if low == high:
        return ms_text(low)
    if math.isinf(high):
        return f"≥ {ms_text(low)}" if low else "not known"
    if low == 0 and high <= floor:
        return in_floor
    least, most = ms_text(low), ms_text(high)
    if low == 0 or low < floor:
        return f"≤ {most}"
    return least if least == most else f"{least} to {most}"


def ms_text(ms: float) -> str:
    """Milliseconds with one decimal below 100, and none above."""
    return f"{ms:.0f}" if abs(ms) >= 100 else f"{ms:.1f}"
