"""Verdicts on how an attempt ended, and on what its peers, its guest and its hypervisor saw."""

from __future__ import annotations

import re

from migrate.analysis.excess_loss import floor_loss, heavy_loss
from migrate.analysis.outage import total_gap_ns
from migrate.analysis.possible_outages import PossibleOutage, possible_outages
from migrate.checks.needs import UNCOMPARED
from migrate.checks.verdicts import between, listed, unmeasured, within
from migrate.model import DIRECTIONS, Attempt, Direction, Gap, Stall, Verdict

# --- how it ended -------------------------------------------------------------------------------


def outcome(attempt: Attempt) -> Verdict:
    """The attempt ended as expected; the evidence is the error as it was reported.

    Looks at how the attempt ended; needs nothing else.
    """
    error = attempt.error
    reported = ""
    if error:
        where = f" on {error.host}" if error.host else ""
        reported = f"{error.tried}{where}: {error.said}" if error.said else f"{error.tried}{where}"
    expected = attempt.case.expect.outcome
    return Verdict(
        check="outcome",
        result="pass" if attempt.outcome == expected else "fail",
        measured=attempt.outcome,
        limit=expected,
        evidence=reported,
    )


def error(attempt: Attempt) -> Verdict | None:
    """What was said of why it did not complete is what was expected: another failure is no pass.

    Looks at the error and the last words of a QEMU that ended; needs an expected error.
    """
    expect, said = attempt.case.expect, _said(attempt)
    if expect.error is None:
        if expect.outcome in ("completed", "aborted"):
            return None
        write = "set expect.error to a pattern of it" if said else "there is no error message"
        return unmeasured("error", f"{UNCOMPARED}: {said or attempt.outcome}; {write}")
    match = re.search(expect.error, said)
    return Verdict(
        check="error",
        result="pass" if match else "fail",
        measured=match[0] if match else (said or "there is no error message"),
        limit=expect.error,
        evidence=said
        if match
        else f"{expect.error!r} is not in: {said or 'there is no error message'}",
    )


def _said(attempt: Attempt) -> str:
    """All that was said of the end of the move."""
    problem = attempt.error
    parts = (problem.tried, problem.said) if problem else ()
    return ": ".join(filter(None, parts))


def held_by(attempt: Attempt) -> Verdict:
    """The guest runs where it is expected; on two hosts, or none, is said in capitals.

    Looks at the hosts that run the guest at the end; needs nothing else.
    """
    hosts = {"source": attempt.source, "target": attempt.target}
    expected = {hosts[side] for side in attempt.case.expect.held_by}
    holders = attempt.held_by
    as_expected = set(holders) == expected
    if len(set(holders)) > 1:
        evidence = f"THE GUEST RUNS ON {len(set(holders))} HOSTS AT ONCE: {listed(holders)}"
    elif not holders and attempt.outcome == "recoverable":
        evidence = "the guest runs nowhere until its post-copy is recovered"
    elif not holders:
        evidence = (
            "the guest runs nowhere, as expected" if as_expected else "THE GUEST RUNS NOWHERE"
        )
    else:
        evidence = f"the guest runs on {holders[0]}"
    return Verdict(
        check="held-by",
        result="pass" if as_expected else "fail",
        measured=listed(holders),
        limit=listed(tuple(sorted(expected))),
        evidence=evidence,
    )


def clean(attempt: Attempt) -> Verdict:
    """Nothing is left over: what was done is undone.

    Looks at what was left on both hosts; needs a search for leftovers.
    """
    left = attempt.leftovers
    if left is None:
        return unmeasured("clean", "leftovers were not searched for")
    return Verdict(
        check="clean",
        result="fail" if left else "pass",
        measured=str(len(left)),
        limit="0",
        unit="leftovers",
        evidence="; ".join(left),
    )


# --- what was lived through ---------------------------------------------------------------------


def measured(attempt: Attempt) -> Verdict:
    """Gaps, streams and the floor are all there: numbers without their floor mean nothing.

    Nor do numbers against a floor on which most packets were lost or late: that network did not
    work before the move. Looks at the meter's data of both directions; needs the gaps, the
    streams' accounts, the floor, packets on the floor, both directions until the end.
    """
    parts = {"gaps": attempt.gaps, "streams": attempt.streams, "floor": attempt.floor}
    missing = [name for name, part in parts.items() if part is None]
    if missing or attempt.floor is None:
        why = f": {'; '.join(attempt.no_floor)}" if attempt.no_floor else ""
        return unmeasured("measured", f"no {', no '.join(missing)}{why}")
    floor = attempt.floor
    lost = [
        f"{account.lost} lost and {account.late} late of {account.sent} {way}"
        for way in DIRECTIONS
        if (account := floor_loss(attempt.loss or (), way)) is not None
        and 2 * (account.lost + account.late) > account.sent
    ]
    return Verdict(
        check="measured",
        result="fail" if lost else "pass",
        measured=", ".join(parts),
        limit=", ".join(parts),
        evidence=f"with nothing going on: {', '.join(lost)}"
        if lost
        else f"floor {floor.egress_ms:.1f} ms egress, {floor.ingress_ms:.1f} ms ingress",
    )


def outage_egress(attempt: Attempt) -> Verdict | None:
    """The longest gap from the guest to its peer.

    Looks at all egress gaps; needs the gaps, the floor.
    """
    return _outage(attempt, "egress", attempt.case.expect.outage_egress_ms)


def outage_ingress(attempt: Attempt) -> Verdict | None:
    """The longest gap from the peer to the guest.

    Looks at all ingress gaps; needs the gaps, the floor.
    """
    return _outage(attempt, "ingress", attempt.case.expect.outage_ingress_ms)


def _outage(attempt: Attempt, direction: Direction, limit: float | None) -> Verdict | None:
    """The longest of all that may have been, by the one that decides.

    That is one over the limit, else one that may be, else the longest.
    """
    check = f"outage.{direction}"
    if limit is None:
        return None
    if attempt.gaps is None:
        return unmeasured(check, "no gaps were recorded", limit)
    outages = possible_outages(attempt, direction)
    if not outages:
        return _no_gap(attempt, check, direction, limit)
    worst = max(
        outages,
        key=lambda outage: (outage.least_ms > limit, outage.most_ms > limit, outage.most_ms),
    )
    least_ms = max(outage.least_ms for outage in outages)
    most_ms = max(outage.most_ms for outage in outages)
    evidence = _outage_sentence(attempt, worst, direction)
    return between(check, least_ms, most_ms, limit, evidence)


def _outage_sentence(attempt: Attempt, outage: PossibleOutage, direction: Direction) -> str:
    sentences = [] if outage.longest is None else [_gap_sentence(attempt, outage.longest)]
    if any(gap.open_ended for gap in outage.gaps):
        sentences.append("it had not ended when the measurement did")
    for stretch in outage.unmeasured:
        after_s = (stretch.begin_ns - attempt.begin_ns) / 1e9
        sentences.append(
            f"{direction} is not known for {stretch.length_ns / 1e6:.1f} ms, {after_s:.3f} s into "
            f"the attempt: {stretch.reason}"
        )
    return "; ".join(sentences)


def _no_gap(attempt: Attempt, check: str, direction: Direction, limit: float) -> Verdict:
    """The verdict where there is no gap: none above what the meter can resolve here."""
    seen_ms = attempt.seen_from_ms(direction)
    if seen_ms is None:
        return unmeasured(
            check,
            "no gap, but the floor was not measured: how short a gap would be seen is not known",
            limit,
        )
    if seen_ms > limit:
        return unmeasured(
            check, f"a gap shorter than the floor, {seen_ms:.1f} ms, can't be seen", limit
        )
    lost = heavy_loss(attempt.loss, direction)
    if lost is not None:
        return unmeasured(check, f"no gap, but {lost:.0%} of {direction} were lost or late", limit)
    return Verdict(
        check=check,
        result="pass",
        measured=f"≤ {seen_ms:.1f}",
        limit=f"{limit:g}",
        unit="ms",
        evidence=f"no {direction} gap above the floor of {seen_ms:.1f} ms",
    )


def _gap_sentence(attempt: Attempt, gap: Gap) -> str:
    after_s = (gap.begin_ns - attempt.begin_ns) / 1e9
    at_least = "at least " if gap.open_ended else ""
    during = f" during {listed(gap.phases)}" if gap.phases else " with no migration going on"
    if not gap.phases and not all(hop.placed for hop in attempt.inside):
        during = " (not all events were recorded: the phase is not known)"
    count = sum(other.direction == gap.direction for other in attempt.gaps or ())
    together_ms = total_gap_ns(attempt.gaps, gap.direction) / 1e6
    others = f"; {count} gaps, together {together_ms:.1f} ms" if count > 1 else ""
    return (
        f"{gap.direction} gap of {at_least}{gap.length_ms:.1f} ± {gap.error_ns / 1e6:.1f} ms, "
        f"{after_s:.3f} s into the attempt{during}: {gap.lost} lost, {gap.late} late{others}"
    )


def stall(attempt: Attempt) -> Verdict | None:
    """The longest time that the guest's own clock stood still, or its tick was late.

    Looks at the guest's clock and tick, from begin to end; needs the guest's clock, the
    shortest stall that is seen.
    """
    limit = attempt.case.expect.stall_ms
    if limit is None:
        return None
    if attempt.stalls is None:
        return unmeasured("stall", "the guest's clock and tick were not recorded", limit)
    worst: Stall | None = max(
        attempt.stalls, key=lambda stall: stall.length_ns + stall.error_ns, default=None
    )
    seen_ms = attempt.stalls_seen_from_ms
    evidence = "the guest's clock neither stood still nor jumped"
    if worst is not None:
        evidence = (
            f"the guest's clock {worst.kind.replace('-', ' ')}, "
            f"{(worst.begin_ns - attempt.begin_ns) / 1e9:.3f} s into the attempt"
        )
        verdict = within("stall", worst.length_ns / 1e6, worst.error_ns / 1e6, limit, evidence)
        if verdict.result == "fail" or seen_ms is None or seen_ms <= limit:
            return verdict
    if seen_ms is None:
        return unmeasured("stall", evidence, limit)
    if seen_ms > limit:
        return unmeasured(
            "stall", f"a stall shorter than {seen_ms:.1f} ms can't be seen here", limit
        )
    return Verdict(
        check="stall",
        result="pass",
        measured=f"≤ {seen_ms:.1f}",
        limit=f"{limit:g}",
        unit="ms",
        evidence=evidence,
    )


def downtime(attempt: Attempt) -> Verdict | None:
    """Downtime as the hypervisor reports it; outage checks have what the network saw.

    Looks at the hypervisor's figures of the move; needs the downtime reported.
    """
    return _reported("downtime", attempt.reported.downtime_ms, attempt.case.expect.downtime_ms)


def total_time(attempt: Attempt) -> Verdict | None:
    """Total time of the move as the hypervisor reports it.

    Looks at the hypervisor's figures of the move; needs the total time reported.
    """
    return _reported("total", attempt.reported.total_ms, attempt.case.expect.total_ms)


def _reported(check: str, value_ms: float | None, limit: float | None) -> Verdict | None:
    if limit is None:
        return None
    if value_ms is None:
        return unmeasured(check, "the hypervisor did not report it", limit)
    return within(check, value_ms, 0.0, limit, "as reported by the hypervisor")
