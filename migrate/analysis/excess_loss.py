"""Loss and lateness outside outages, held against the floor's: what of it a network adds.

The floor's window is judged by the same meter in the same attempt; both shares have the error of
what was counted (:mod:`migrate.statistics.shares`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from migrate.model import Direction, Loss
from migrate.statistics.shares import Share, difference, share

HEAVY = 0.05
"""Share of packets: where more is lost than on the floor, a loss can't be told from an outage."""
LEAST_PACKETS = 200
"""A window with fewer packets is held against the floor together with the one after it."""


@dataclass(frozen=True, slots=True)
class Excess:
    """By how much a larger share was lost or late in a window than on the floor."""

    loss: Loss
    share: Share


def floor_loss(losses: Iterable[Loss], direction: Direction) -> Loss | None:
    """The floor's account of a direction; None: there is none."""
    return next(
        (loss for loss in losses if loss.direction == direction and loss.window == "floor"), None
    )


def excesses(losses: Sequence[Loss], direction: Direction) -> tuple[Excess, ...]:
    """Each window after the floor's against it; none without a floor."""
    floor = floor_loss(losses, direction)
    if floor is None:
        return ()
    return tuple(
        Excess(loss, difference(_share(loss), _share(floor)))
        for loss in losses
        if loss.direction == direction and loss.window != "floor"
    )


def joined(losses: Sequence[Loss], direction: Direction) -> tuple[Loss, ...]:
    """The same with windows of few packets joined to the one after; the time after stays."""
    result: list[Loss] = []
    for loss in losses:
        if loss.direction == direction:
            few = result and result[-1].window == "move" and result[-1].sent < LEAST_PACKETS
            result.append(_sum(result.pop(), loss) if few else loss)
    return tuple(result)


def _sum(first: Loss, second: Loss) -> Loss:
    return second.model_copy(
        update={
            "begin_ns": first.begin_ns,
            "sent": first.sent + second.sent,
            "lost": first.lost + second.lost,
            "late": first.late + second.late,
            "late_in_gaps": first.late_in_gaps + second.late_in_gaps,
        }
    )


def _share(loss: Loss) -> Share:
    return share(loss.lost + loss.late, loss.sent)


def unserved_after(losses: Sequence[Loss], direction: Direction) -> Share | None:
    """Of the packets after the last move, but for outages, those not served; None: not counted."""
    after = [loss for loss in losses if (loss.direction, loss.window) == (direction, "after")]
    if not after:
        return None
    return share(after[0].lost + after[0].late + after[0].late_in_gaps, after[0].sent)


def heavy_loss(losses: Sequence[Loss] | None, direction: Direction) -> float | None:
    """The largest share of a window that was lost or late, if it is more than on the floor by
    :data:`HEAVY` at least: that no gap was seen tells of no outage then. None: it is not.
    """
    heavy = [
        _share(excess.loss).value
        for excess in excesses(losses or (), direction)
        if excess.share.low > HEAVY
    ]
    return max(heavy, default=None)
