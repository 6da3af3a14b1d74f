"""Verdicts on what went on inside of a move; :mod:`migrate.checks` has the table of all checks."""

from __future__ import annotations

from migrate.model import Attempt, Gap, Inside, Verdict


def handoff_equal(attempt: Attempt) -> Verdict | None:
    """No device's state differs in what has to arrive as it left."""
    if not attempt.case.expect.handoff:
        return None
    compared = [one for hop in attempt.inside for one in hop.devices or () if one.compared]
    if not compared:
        return _unmeasured("handoff.equal", _unseen(attempt, "no device was compared"))
    wrong = [
        f"{one.device}, {difference.field}: {difference.before} before, {difference.after} after "
        f"({difference.why})"
        for one in compared
        for difference in one.differences
        if not difference.lawful
    ]
    names = ", ".join(dict.fromkeys(one.device for one in compared))
    return Verdict(
        check="handoff.equal",
        result="fail" if wrong else "pass",
        measured="differs" if wrong else "same",
        limit="same",
        evidence="; ".join(wrong) or f"{names}: as it left, but for what may differ",
    )


def ring_sound(attempt: Attempt) -> Verdict | None:
    """No virtqueue broke a rule of its layout when the source had stopped."""
    if not attempt.case.expect.rings:
        return None
    rings = [ring for hop in attempt.inside for ring in hop.rings or ()]
    if not rings:
        return _unmeasured("ring.sound", _unseen(attempt, "no ring was read"))
    wrong = [f"{ring.device}, queue {ring.queue}: {rule}" for ring in rings for rule in ring.broken]
    unchecked = [f"queue {ring.queue}: {rule}" for ring in rings for rule in ring.unchecked]
    if not wrong and all(ring.unchecked and not ring.facts for ring in rings):
        return _unmeasured("ring.sound", "; ".join(unchecked))
    return Verdict(
        check="ring.sound",
        result="fail" if wrong else "pass",
        measured="broken" if wrong else "sound",
        limit="sound",
        evidence="; ".join(wrong) or f"{len(rings)} rings; not checked: {len(unchecked)} rules",
    )


def downtime_explained(attempt: Attempt) -> Verdict | None:
    """Of the longest gap each way, what was recorded tells at least a share."""
    limit = attempt.case.expect.explained_share
    if limit is None:
        return None
    if attempt.explained is None:
        return _unmeasured("downtime.explained", _unseen(attempt, "no gaps to explain"), limit)
    least = min((one.share for one in attempt.explained), default=1.0)
    dark = [
        (span.length_ms, f"{one.direction}: {span.length_ms:.1f} ms, {span.what}")
        for one in attempt.explained
        for span in one.spans
        if not span.explained
    ]
    told = "; ".join(text for _, text in sorted(dark, reverse=True)[:3])
    nothing = "no gap beyond the floor" if not attempt.explained else "all of it is told"
    return Verdict(
        check="downtime.explained",
        result="pass" if least >= limit else "fail",
        measured=f"{least:.3f}",
        limit=f"{limit:g}",
        unit="share",
        evidence=f"unexplained: {told}" if told else nothing,
    )


def reported_agrees(attempt: Attempt) -> Verdict | None:
    """The downtime that is reported is near the outage that was seen around the stop."""
    limit = attempt.case.expect.reported_within_ms
    if limit is None:
        return None
    reported = attempt.reported.downtime_ms
    if reported is None or attempt.gaps is None:
        missing = "no downtime was reported" if reported is None else "there are no gaps on record"
        return _unmeasured("reported.agrees", missing, limit, "ms")
    seen = [gap for gap in attempt.gaps if gap.part == "switchover"]
    worst: Gap | None = max(seen, key=lambda gap: abs(gap.length_ms - reported), default=None)
    length = worst.length_ms if worst else 0.0
    error = worst.error_ns / 1e6 if worst else _floor_ms(attempt)
    apart = abs(length - reported)
    way = f"{worst.direction} {length:.1f}" if worst else "no gap beyond the floor"
    result = "pass" if apart + error <= limit else "fail" if apart - error > limit else None
    evidence = f"reported {reported:.1f} ms, seen {way} ± {error:.1f} ms"
    if worst is not None and worst.open_ended and result != "fail":
        return _unmeasured("reported.agrees", f"{evidence}, or more", limit, "ms")
    return Verdict(
        check="reported.agrees",
        result=result or "unmeasured",
        measured=f"{apart:.1f} ± {error:.1f}",
        limit=f"{limit:g}",
        unit="ms",
        evidence=evidence if result else f"{evidence}; the limit lies inside the error",
    )


def announce_sent(attempt: Attempt) -> Verdict | None:
    """The fabric heard where the guest is soon after it ran, and not before."""
    limit = attempt.case.expect.announce_within_ms
    if limit is None:
        return None
    hops = [hop for hop in attempt.inside if hop.announced is not None]
    if not hops:
        return _unmeasured("announce.sent", _unseen(attempt, "no guest ran on"), limit, "ms")
    worst = max(hops, key=lambda hop: _lateness(hop, limit))
    first, late = worst.first_announce_ms, _lateness(worst, limit)
    told = f"hop {worst.hop}: {worst.announced} announcements after the resume"
    return Verdict(
        check="announce.sent",
        result="fail" if late > 0 else "pass",
        measured="none" if first is None else f"{first:.1f}",
        limit=f"0 to {limit:g}",
        unit="ms",
        evidence=told if first is None or first >= 0 else f"{told}, the first before it ran",
    )


def _lateness(hop: Inside, limit: float) -> float:
    """Above 0 is a failure; one that was never heard is the worst."""
    first = hop.first_announce_ms
    if first is None:
        return float("inf")
    return -first if first < 0 else first - limit


def _floor_ms(attempt: Attempt) -> float:
    floor = attempt.floor
    return max(floor.egress_ms, floor.ingress_ms) if floor else 0.0


def _unseen(attempt: Attempt, what: str) -> str:
    reasons = dict.fromkeys(reason for hop in attempt.inside for reason in hop.unseen)
    return "; ".join((what, *reasons))


def _unmeasured(check: str, reason: str, limit: float | None = None, unit: str = "") -> Verdict:
    told = "" if limit is None else f"{limit:g}"
    return Verdict(check=check, result="unmeasured", limit=told, unit=unit, evidence=reason)
