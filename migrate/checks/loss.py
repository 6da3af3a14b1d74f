"""Verdicts on packets that were lost or late outside outages, against the floor's."""

from __future__ import annotations

from migrate.analysis.excess_loss import Excess, excesses, floor_loss, joined
from migrate.checks.verdicts import CheckResult, guest_expected, share_between, unmeasured
from migrate.model import Attempt, Direction, Verdict


def loss_egress(attempt: Attempt) -> Verdict | None:
    """From the guest to its peer no larger share is lost or late than on the floor.

    Looks at every packet that no outage accounts for, window by window; needs packets on the floor,
    packets after the move.
    """
    return _loss(attempt, "egress")


def loss_ingress(attempt: Attempt) -> Verdict | None:
    """From the peer to the guest no larger share is lost or late than on the floor.

    Looks at every packet that no outage accounts for, window by window; needs packets on the floor,
    packets after the move.
    """
    return _loss(attempt, "ingress")


def _loss(attempt: Attempt, direction: Direction) -> Verdict | None:
    """One window that shows more fails; each must show that it is not more, few packets apart."""
    expect = attempt.case.expect
    check, limit = f"loss.{direction}", expect.loss_within
    if limit is None or not expect.network or not guest_expected(attempt):
        return None
    limit = max(limit, _floor_allows(attempt, direction))
    every = excesses(attempt.loss or (), direction)
    if not every:
        return unmeasured(check, "no packets to count", limit, "share")
    worst = max(every, key=lambda excess: excess.share.low)
    if worst.share.low > limit:
        return _verdict(attempt, "fail", worst, limit)
    together = excesses(joined(attempt.loss or (), direction), direction)
    least_known = max(together, key=lambda excess: excess.share.high)
    result: CheckResult = "pass" if least_known.share.high <= limit else "unmeasured"
    return _verdict(attempt, result, least_known, limit)


def _floor_allows(attempt: Attempt, direction: Direction) -> float:
    """Twice the share that was lost or late on the floor: on a network that loses packets in
    bursts, or to a guest that takes them in bursts, that much more is no sign of the move."""
    floor = floor_loss(attempt.loss or (), direction)
    return 2 * (floor.lost + floor.late) / floor.sent if floor is not None and floor.sent else 0.0


def _verdict(attempt: Attempt, result: CheckResult, excess: Excess, limit: float) -> Verdict:
    loss, share = excess.loss, excess.share
    floor = floor_loss(attempt.loss or (), loss.direction)
    assert floor is not None
    when = "after the move" if loss.window == "after" else f"until the end of move {loss.hop}"
    evidence = (
        f"{when} {loss.lost} of {loss.sent} packets were lost and {loss.late} late, outside "
        f"outages; on the floor {floor.lost} and {floor.late} of {floor.sent}"
    )
    inside = f"; the limit, {limit:g}, is within the error" if result == "unmeasured" else ""
    return Verdict(
        check=f"loss.{loss.direction}",
        result=result,
        measured=share_between(share.value, share.low, share.high),
        limit=f"{limit:g}",
        unit="more than on the floor",
        evidence=evidence + inside,
    )
