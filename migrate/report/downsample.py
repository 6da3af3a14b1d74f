"""Fewer points for a figure: every gap's edge and every extreme stays, the rest is downsampled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from migrate.model import Gap
from migrate.model.recording import Arrivals

Rows = NDArray[np.int64]


def downsample(x: NDArray[np.float64], y: NDArray[np.float64], keep: Rows, most: int) -> Rows:
    """Rows to draw: about ``most`` and those in ``keep``, in order of ``x``.

    The axis is cut into bins; of each the first, the last, the least and the greatest stay.
    """
    if len(x) <= most:
        return np.argsort(x, kind="stable")
    order = np.argsort(x, kind="stable")
    bins = np.array_split(order, max(1, most // 4))
    chosen = [
        (rows[0], rows[-1], rows[np.argmin(y[rows])], rows[np.argmax(y[rows])]) for rows in bins
    ]
    rows = np.unique(np.concatenate([np.asarray(chosen, dtype=np.int64).ravel(), keep]))
    return np.asarray(rows[np.argsort(x[rows], kind="stable")], dtype=np.int64)


def gap_edges(arrivals: Arrivals, gaps: tuple[Gap, ...], spacings: int = 20) -> Rows:
    """Rows at the begin and the end of every gap, and on either side of the widest spacings."""
    if not len(arrivals):
        return np.empty(0, dtype=np.int64)
    order = np.argsort(arrivals.sent_ns, kind="stable")
    sent = arrivals.sent_ns[order]
    points = [point for gap in gaps for point in (gap.begin_ns, gap.begin_ns + gap.length_ns)]
    at = np.searchsorted(sent, np.asarray([_in_64_bits(point) for point in points], dtype=np.int64))
    wide = np.argsort(np.diff(sent), kind="stable")[-spacings:]
    near = np.concatenate([at - 1, at, at + 1, wide, wide + 1])
    return np.asarray(order[np.clip(np.unique(near), 0, len(order) - 1)], dtype=np.int64)


def _in_64_bits(at_ns: int) -> int:
    return max(-(1 << 63), min((1 << 63) - 1, at_ns))


def lost_stretches(arrivals: Arrivals) -> list[tuple[float, float]]:
    """Begin and end, ns on the axis, of stretches of send time from which nothing arrived.

    A number that is missing between two that arrived was sent between them, evenly spaced.
    """
    if not len(arrivals):
        return []
    seq, first = np.unique(arrivals.seq, return_index=True)
    sent = arrivals.sent_ns[first].astype(np.float64)
    steps = np.diff(seq)
    before = np.flatnonzero(steps > 1)
    interval = (sent[before + 1] - sent[before]) / steps[before]
    begins, ends = sent[before] + interval, sent[before + 1] - interval
    return list(zip(begins.tolist(), ends.tolist(), strict=True))
