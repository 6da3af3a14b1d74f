"""Verdicts on the details of each move."""

from __future__ import annotations

import math

from migrate.analysis.outage import longest_gap
from migrate.checks import needs
from migrate.checks.verdicts import unmeasured
from migrate.model import (
    DIRECTIONS,
    DIRTY_RATE_S,
    Attempt,
    Direction,
    DirtyMethod,
    GapExplanation,
    MoveDetails,
    Verdict,
    Workload,
)


def handoff_equal(attempt: Attempt) -> Verdict | None:
    """No device's state differs in what has to arrive as it left.

    Looks at the state of every network device on each hop; needs each network device's state on
    both ends.
    """
    if not attempt.case.expect.handoff:
        return None
    compared = [
        (hop, device) for hop in attempt.inside for device in hop.devices or () if device.compared
    ]
    wrong = [
        f"{_hop_prefix(attempt, hop)}{device.device}, {difference.field}: "
        f"{difference.before} before, {difference.after} after ({difference.why})"
        for hop, device in compared
        for difference in device.differences
        if not difference.lawful
    ]
    if not wrong and (missing := needs.HANDOFF.missing(attempt)):
        return unmeasured("handoff.equal", missing)
    names = ", ".join(
        dict.fromkeys(_hop_prefix(attempt, hop) + device.device for hop, device in compared)
    )
    untold = sum(len(device.untold) for _, device in compared)
    but = f"; not compared: {untold} fields that one end alone told" if untold else ""
    return Verdict(
        check="handoff.equal",
        result="fail" if wrong else "pass",
        measured="differs" if wrong else "same",
        limit="same",
        evidence=needs.listed(wrong) or f"{names}: as it left, but for what may differ{but}",
    )


def ring_sound(attempt: Attempt) -> Verdict | None:
    """No virtqueue broke a rule of its layout when the source had stopped.

    Looks at every queue of the network devices on each hop; needs each of its queues.
    """
    if not attempt.case.expect.rings:
        return None
    rings = [(hop, ring) for hop in attempt.inside for ring in hop.rings or ()]
    wrong = [
        f"{_hop_prefix(attempt, hop)}{ring.device}, queue {ring.queue}: {rule}"
        for hop, ring in rings
        for rule in ring.broken
    ]
    if not wrong and (missing := needs.QUEUES.missing(attempt)):
        return unmeasured("ring.sound", missing)
    rules = tuple(dict.fromkeys(rule for _, ring in rings for rule in ring.unchecked))
    but = f"; not checked: {needs.listed(rules)}" if rules else ""
    return Verdict(
        check="ring.sound",
        result="fail" if wrong else "pass",
        measured="broken" if wrong else "sound",
        limit="sound",
        evidence=needs.listed(wrong) or f"rings read: {len(rings)}{but}",
    )


def downtime_explained(attempt: Attempt) -> Verdict | None:
    """At least a share of the longest gap each way is explained by what was recorded.

    Looks at the explanation of the longest gap each way; needs an explanation.
    """
    check, limit = "downtime.explained", attempt.case.expect.explained_share
    if limit is None:
        return None
    if attempt.explained is None:
        return unmeasured(check, _with_reasons(attempt, "no gaps to explain"), limit, "share")
    explained = {gap.direction for gap in attempt.explained}
    unexplained_ways = [
        way for way in DIRECTIONS if way not in explained and longest_gap(attempt.gaps, way)
    ]
    worst = min(attempt.explained, key=lambda gap: gap.share, default=None)
    share, error = (worst.share, _share_error(worst)) if worst else (1.0, 0.0)
    evidence = _longest_unexplained(attempt.explained)
    failed = share + error < limit
    if unexplained_ways and not failed:
        reason = f"nothing tells of the longest gap of {', '.join(unexplained_ways)}"
        return unmeasured(check, _with_reasons(attempt, reason), limit, "share")
    within = failed or share - error >= limit
    return Verdict(
        check=check,
        result="fail" if failed else "pass" if within else "unmeasured",
        measured=f"{share:.3f} ± {error:.3f}" if error else f"{share:.3f}",
        limit=f"{limit:g}",
        unit="share",
        evidence=evidence if within else f"{evidence}; the limit lies inside the error",
    )


def _share_error(gap: GapExplanation) -> float:
    """Error of a gap's share: unexplained spans are as long as their ends are right."""
    error_ns = sum(span.error_ns for span in gap.spans if not span.explained)
    return error_ns / gap.length_ns if gap.length_ns else 0.0


def _longest_unexplained(explained: tuple[GapExplanation, ...]) -> str:
    """The three longest unexplained spans, the longest first, in a sentence."""
    spans = [
        (span.length_ms, f"{gap.direction}: {span.length_ms:.1f} ms, {span.what}")
        for gap in explained
        for span in gap.spans
        if not span.explained
    ]
    listed = "; ".join(text for _, text in sorted(spans, reverse=True)[:3])
    nothing = "all of it is told" if explained else "no gap beyond the floor"
    return f"unexplained: {listed}" if listed else nothing


def reported_agrees(attempt: Attempt) -> Verdict | None:
    """The downtime that is reported is near the longest switchover gap, of the worse direction.

    Looks at the hypervisor's account and at all gaps of the switchover; needs the downtime
    reported, the gaps, events on the axis.
    """
    check, limit = "reported.agrees", attempt.case.expect.reported_within_ms
    if limit is None:
        return None
    reported = attempt.reported.downtime_ms
    if reported is None or attempt.gaps is None:
        missing = "no downtime was reported" if reported is None else "there are no gaps on record"
        return unmeasured(check, missing, limit)
    if not all(hop.placed for hop in attempt.inside):
        return unmeasured(
            check, _with_reasons(attempt, "not known which gap is the switchover's"), limit
        )
    ways = [_disagreement(attempt, way, reported) for way in DIRECTIONS]
    least, most, observed = max(ways, key=lambda way: (way[0] > limit, way[1] > limit, way[1]))
    evidence = f"reported {reported:.1f} ms, seen {observed}"
    if least <= limit < most:
        evidence += "; the limit lies inside the error"
    middle, error = (least + most) / 2, (most - least) / 2
    return Verdict(
        check=check,
        result="fail" if least > limit else "pass" if most <= limit else "unmeasured",
        measured=f"{middle:.1f} ± {error:.1f}" if math.isfinite(most) else f"≥ {least:.1f}",
        limit=f"{limit:g}",
        unit="ms",
        evidence=evidence,
    )


def _disagreement(attempt: Attempt, way: Direction, reported: float) -> tuple[float, float, str]:
    """The least and the most, in ms, that ``reported`` is off; and what the network saw."""
    gap = longest_gap((gap for gap in attempt.gaps or () if gap.part == "switchover"), way)
    if gap is not None:
        error = gap.error_ns / 1e6
        shortest, length = gap.length_ms - error, gap.length_ms + error
        observed = f"{way} {gap.length_ms:.1f} ± {error:.1f} ms"
        if gap.open_ended:
            length, observed = math.inf, f"{observed}, or more"
    elif (seen_from := attempt.seen_from_ms(way)) is not None:
        shortest, length = 0.0, seen_from
        observed = f"{way} no switchover gap beyond the floor of {length:.1f} ms"
    else:
        shortest, length = 0.0, math.inf
        observed = f"{way} no switchover gap, but no floor to say from which length on"
    least = max(0.0, shortest - reported, reported - length)
    return least, max(abs(shortest - reported), abs(length - reported)), observed


def announce_sent(attempt: Attempt) -> Verdict | None:
    """The fabric saw an announcement soon after the guest ran, and none before; on every hop.

    Looks at the first announcement on each hop; needs nothing else.
    """
    check, limit = "announce.sent", attempt.case.expect.announce_within_ms
    if limit is None:
        return None
    heard = [(hop, late) for hop in attempt.inside if (late := _late_ms(hop, limit)) is not None]
    worst, late = max(heard, key=lambda row: row[1], default=(None, 0.0))
    if worst is None or (late <= 0 and len(heard) < len(attempt.inside)):
        unmeasured_hops = [str(hop.hop) for hop in attempt.inside if _late_ms(hop, limit) is None]
        what = (
            f"hop {', '.join(unmeasured_hops)}: not measured"
            if unmeasured_hops
            else "no move was looked into"
        )
        return unmeasured(check, _with_reasons(attempt, what), limit)
    first = worst.first_announce_ms
    evidence = f"hop {worst.hop}: {worst.announced} announcements after the resume"
    return Verdict(
        check=check,
        result="fail" if late > 0 else "pass",
        measured="none" if first is None else f"{first:.1f}",
        limit=f"0 to {limit:g}",
        unit="ms",
        evidence=evidence
        if first is None or first >= 0
        else f"{evidence}, the first before it ran",
    )


def _late_ms(hop: MoveDetails, limit: float) -> float | None:
    """How late the first announcement was: above 0 fails, infinite: none; None: not measured."""
    first = hop.first_announce_ms
    if first is None:
        return math.inf if hop.announced == 0 else None
    return -first if first < 0 else first - limit


BEST_FIRST: tuple[DirtyMethod, ...] = ("dirty-ring", "dirty-bitmap", "page-sampling")


def dirty_rate(attempt: Attempt) -> Verdict | None:
    """Before the move the best method measured what the guest wrote meanwhile, by its own count.

    What it was asked to write is not the truth: an emulated guest may not come to write as much.
    Looks at the rate measured before the move; needs the guest's count.
    """
    check, limit = "dirty.rate", attempt.case.expect.dirty_rate_within
    if limit is None:
        return None
    workload = attempt.case.workload
    if (reason := _no_set_rate(workload)) is not None:
        return unmeasured(check, reason, limit, "share")
    before = {rate.method: rate for rate in attempt.dirty_rates or () if rate.when == "before"}
    tried = [before[method] for method in BEST_FIRST if method in before]
    best = next((rate for rate in tried if rate.mib_s is not None), None)
    if best is None or best.mib_s is None:
        reasons = [f"{rate.method}: {rate.reason}" for rate in tried]
        return unmeasured(check, "; ".join(reasons) or "nothing was measured", limit, "share")
    wrote = best.written_mib_s
    evidence = f"by {best.method}: {best.mib_s:g} ± {best.error_mib_s:.1f} MiB/s"
    if not wrote:
        what = "wrote nothing" if wrote == 0 else "did not tell what it wrote"
        return unmeasured(check, f"{evidence}; the guest {what} meanwhile", limit, "share")
    off, error = abs(best.mib_s - wrote) / wrote, best.error_mib_s / wrote
    evidence += f", the guest wrote {wrote:.1f} of {workload.dirty_mib_s:g}"
    if best.method == "page-sampling":
        evidence += "; the error is twice the deviation of a random sample, and QEMU's rounding"
    within = off - error > limit or off + error <= limit
    return Verdict(
        check=check,
        result="fail" if off - error > limit else "pass" if within else "unmeasured",
        measured=f"{off:.2f} ± {error:.2f}",
        limit=f"{limit:g}",
        unit="share",
        evidence=evidence if within else f"{evidence}; the limit lies inside the error",
    )


def _no_set_rate(workload: Workload) -> str | None:
    """Why a rate can't be compared with the workload's; None: it can."""
    if not workload.dirty_mib_s or not workload.dirty_mib:
        return "the workload sets no rate: dirty_mib or dirty_mib_s is 0"
    if workload.dirty_mib_s * DIRTY_RATE_S > workload.dirty_mib:
        return (
            f"at {workload.dirty_mib_s:g} MiB/s the {workload.dirty_mib} MiB are written over "
            f"within the {DIRTY_RATE_S} s of measuring, and a page counts once: a larger dirty_mib "
            "shows it"
        )
    return None


def _hop_prefix(attempt: Attempt, hop: MoveDetails) -> str:
    """``hop N: `` where an attempt has several hops, else nothing."""
    return f"hop {hop.hop}: " if len(attempt.inside) > 1 else ""


def _with_reasons(attempt: Attempt, what: str) -> str:
    """``what`` is missing, and every reason on record."""
    reasons = dict.fromkeys(reason for hop in attempt.inside for reason in hop.unseen)
    return "; ".join((what, *reasons))
