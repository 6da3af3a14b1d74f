"""Jumps of the guest's clock that are shorter than the round trip: both bounds step together.

Where the guest stands still for 30 ms and a round trip takes 40, no bound contradicts another. But
from then on egress looks 30 ms slower than it ever was, and ingress 30 ms faster. Ways do not
change so; a clock does. What the two steps have in common is the clock's.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from migrate.analysis.clock_bounds import (
    MOST_DRIFT,
    MOST_SEGMENTS,
    TOLERANCE_NS,
    Bounds,
    OffsetBounds,
    looks,
)

_BLOCK = 64
"""Rows whose best bounds make a level."""
_NEAR = 8
"""Blocks on each side whose best are compared."""
_LEAST_SPAN_NS = 20_000_000
"""Of the guest's clock, for the levels before: the flush of a queue takes next to none of it."""
_NEAR_SHARE = 0.2
"""A bound this share of a step beyond a level is ruled out by it, and so is one by _NEAR_NS."""
_NEAR_NS = 100_000


def common_steps(bounds: OffsetBounds) -> list[int]:
    """Rows at which both bounds step the same way by more than the tolerance, in order."""
    steps: list[int] = []
    start = 0
    while len(steps) < MOST_SEGMENTS and (step := _next_step(bounds, start)) is not None:
        steps.append(step)
        start = step
    return steps


def _next_step(bounds: OffsetBounds, start: int) -> int | None:
    for _, end in looks(start, len(bounds)):
        if (step := _first_step(bounds, start, end)) is not None:
            return step
    return None


def _first_step(bounds: OffsetBounds, start: int, end: int) -> int | None:
    """The first step, as far as it can be told with the rows from ``start`` up to ``end``."""
    blocks = (end - start) // _BLOCK
    if blocks < 3:
        return None
    rows = start + np.arange(blocks) * _BLOCK
    upper = np.minimum.reduceat(bounds.upper[:end], rows)
    lower = np.maximum.reduceat(bounds.lower[:end], rows)
    # The block between "before" and "after" is the one that the step may lie in.
    up, down = (
        (-_best_before(-upper), -_best_after(-upper)),
        (
            _best_before(lower),
            _best_after(lower),
        ),
    )
    age = (bounds.guest_ns[rows] - bounds.guest_ns[start]) * MOST_DRIFT
    fastest_in = (np.maximum.accumulate(lower + age) - age)[:-2]
    fastest_out = (np.minimum.accumulate(upper - age) + age)[:-2]
    with np.errstate(invalid="ignore"):
        up_step, down_step = up[1] - up[0], down[1] - down[0]
        stood = np.minimum(np.minimum(up_step, down_step), down[1] - fastest_in)
        ahead = np.minimum(np.minimum(-up_step, -down_step), fastest_out - up[1])
    first_before = np.maximum(np.arange(len(rows) - 2) - (_NEAR - 1), 0)
    spans = bounds.guest_ns[rows[1:-1]] - bounds.guest_ns[rows[first_before]]
    known = np.isfinite(up_step) & np.isfinite(down_step) & (spans >= _LEAST_SPAN_NS)
    common = np.where(known, np.maximum(stood, ahead), 0.0)
    over = np.flatnonzero(common > TOLERANCE_NS)
    if not len(over):
        return None
    cluster = over[over < over[0] + _NEAR]
    best = int(cluster[np.argmax(common[cluster])])
    if int(rows[best]) + 2 * _NEAR * _BLOCK > end and end < len(bounds):
        return None  # the next look sees all of it
    steps = up_step[best], down_step[best]
    first, last = int(rows[best]), min(end, int(rows[best]) + 3 * _BLOCK)
    stood_still = bool(steps[1] > 0)
    near = [min(_NEAR_SHARE * abs(step), _NEAR_NS) for step in steps]
    if stood_still:
        limits = up[1][best] - near[0], down[0][best] + near[1]
    else:
        limits = up[0][best] - near[0], down[1][best] + near[1]
    return max(start + 1, first + _place(bounds.part(first, last), limits, stood=stood_still))


def _best_before(levels: Bounds) -> Bounds:
    """For each block but the first and the last the highest level of the blocks before it."""
    padded = np.concatenate([np.full(_NEAR - 1, -np.inf), levels])
    return np.asarray(sliding_window_view(padded, _NEAR).max(axis=1)[:-2])


def _best_after(levels: Bounds) -> Bounds:
    """The same of the blocks after it."""
    return _best_before(levels[::-1])[::-1]


def _place(bounds: OffsetBounds, limits: tuple[float, float], *, stood: bool) -> int:
    """Where rows that fit the old levels give way to rows that fit the new ones.

    A row beyond a level is ruled out by it. One that fits both was slower by the whole step under
    one of them: it speaks for the other, half as loud.
    """
    below, above = bounds.upper < limits[0], bounds.lower > limits[1]
    fits_both = np.where(np.isfinite(bounds.upper), -1, 1)
    vote = np.where(below, 2, np.where(above, -2, fits_both))
    score = np.cumsum(vote if stood else -vote)
    return int(np.argmax(np.concatenate([[0], score])))
