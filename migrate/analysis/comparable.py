"""What speaks against a comparison of attempts' figures, whatever these are."""

from __future__ import annotations

from collections.abc import Sequence

from migrate.model import Attempt


def why_incomparable(attempts: Sequence[Attempt]) -> str | None:
    """Why figures of these attempts must not be ranked or tested against each other.

    None: nothing speaks against it. Rows of a table are asked about two by two, a run together with
    its baseline. What was done to the guest is not asked here: it is what a comparison is of.
    """
    return _meters(attempts)


def _meters(attempts: Sequence[Attempt]) -> str | None:
    """Packets that are sent less often see other lengths: the two are other figures."""
    intervals = sorted({attempt.case.workload.interval_us for attempt in attempts})
    if len(intervals) < 2:
        return None
    every = " and ".join(f"{interval / 1e3:g} ms" for interval in intervals)
    return f"their packets were sent every {every}"
