"""Verdicts on the details of each move."""

from __future__ import annotations

import math
from collections.abc import Iterable

from migrate.analysis.possible_outages import PossibleOutage, possible_outages
from migrate.checks import needs
from migrate.checks.verdicts import CheckResult, between, share_between, unmeasured
from migrate.model import (
    DIRECTIONS,
    Attempt,
    Direction,
    DirtyMethod,
    DirtyRate,
    GapExplanation,
    MoveDetails,
    Verdict,
)


def handoff_equal(attempt: Attempt) -> Verdict | None:
    """No device's state differs in what has to arrive as it left.

    Looks at the state of every network device on each hop; needs each network device's state on
    both sides.
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
    but = f"; not compared: {untold} fields that only one end reported" if untold else ""
    return Verdict(
        check="handoff.equal",
        result="fail" if wrong else "pass",
        measured="differs" if wrong else "same",
        limit="same",
        evidence=needs.listed(wrong)
        or f"{names}: same on both ends, but for allowed differences{but}",
    )


def ring_sound(attempt: Attempt) -> Verdict | None:
    """No virtqueue broke a rule of its layout when the source had stopped.

    Looks at every queue of the network devices on each hop; needs every virtqueue.
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

    Looks at the causes of the longest gap each way, each with its error; needs the gaps, the
    floor, an explanation of each way, gaps that had ended, a bound on every gap.
    """
    check, limit = "downtime.explained", attempt.case.expect.explained_share
    if limit is None:
        return None
    if attempt.explained is None:
        return unmeasured(check, _with_reasons(attempt, "no gaps to explain"), limit, "share")
    ways = [
        (*_explained_share(gap, _own_error_ns(attempt, gap)), gap.share)
        for gap in attempt.explained
    ] or [(1.0, 1.0, 1.0)]
    least, most, share = min(ways, key=lambda way: (way[1] >= limit, way[0] >= limit, way[0]))
    result: CheckResult = "fail" if most < limit else "pass" if least >= limit else "unmeasured"
    evidence = _longest_unexplained(attempt.explained)
    if result == "unmeasured":
        evidence += "; the limit is within the error"
    return Verdict(
        check=check,
        result=result,
        measured=share_between(share, least, most),
        limit=f"{limit:g}",
        unit="share",
        evidence=evidence,
    )


def _own_error_ns(attempt: Attempt, explained: GapExplanation) -> int:
    """The error of a gap itself, which its explanation can't be better than; 0 if it is not small.

    How long the gap was is another check's question.
    """
    same = [
        gap.error_ns
        for gap in attempt.gaps or ()
        if (gap.direction, gap.begin_ns) == (explained.direction, explained.begin_ns)
    ]
    error_ns = max(same, default=0)
    return error_ns if 2 * error_ns < explained.length_ns else 0


def _explained_share(gap: GapExplanation, own_ns: int) -> tuple[float, float]:
    """The least and the most of a gap that may be explained.

    A border between what is explained and what is not may lie elsewhere by the errors of both
    spans. So may the first one's begin and the last one's end, if they are known less well than
    the gap's ends themselves (``own_ns``).
    """
    if not gap.length_ns:
        return 1.0, 1.0
    before = (None, *gap.spans)
    after = (*gap.spans[1:], None)
    least = most = 0
    for span, previous, following in zip(gap.spans, before, after, strict=False):
        length_ns = span.end_ns - span.begin_ns
        at_end_ns = span.error_ns if span.error_ns > own_ns + END_NS else 0
        borders_ns = sum(
            max(span.error_ns, other.error_ns) if other else at_end_ns
            for other in (previous, following)
            if other is None or other.explained != span.explained
        )
        if span.explained:
            least += length_ns - min(length_ns, borders_ns)
            most += length_ns
        else:
            most += min(length_ns, borders_ns)
    return least / gap.length_ns, min(1.0, most / gap.length_ns)


END_NS = 1_000_000
"""The error of a gap's place is not quite that of its length."""


def _longest_unexplained(explained: tuple[GapExplanation, ...]) -> str:
    """The three longest unexplained spans, the longest first, in a sentence."""
    spans = [
        (span.length_ms, f"{gap.direction}: {span.length_ms:.1f} ms, {span.what}")
        for gap in explained
        for span in gap.spans
        if not span.explained
    ]
    listed = "; ".join(text for _, text in sorted(spans, reverse=True)[:3])
    nothing = "fully explained" if explained else "no gap beyond the floor"
    return f"unexplained: {listed}" if listed else nothing


def reported_agrees(attempt: Attempt) -> Verdict | None:
    """The downtime that is reported is near the longest switchover gap, of the worse direction.

    Looks at the hypervisor's figures and all gaps of the switchover, hop by hop; needs the downtime
    reported, the gaps, the floor, events on the axis.
    """
    check, limit = "reported.agrees", attempt.case.expect.reported_within_ms
    if limit is None:
        return None
    reported = attempt.reported.downtime_ms
    if reported is None or attempt.gaps is None:
        missing = "no downtime was reported" if reported is None else "no gaps were recorded"
        return unmeasured(check, missing, limit)
    if not all(hop.placed for hop in attempt.inside):
        return unmeasured(
            check, _with_reasons(attempt, "which gap is the switchover's is not known"), limit
        )
    ways = [
        _disagreement(attempt, way, hop, reported)
        for way in DIRECTIONS
        for hop in attempt.inside or (None,)
    ]
    least, most, evidence = max(ways, key=lambda way: (way[0] > limit, way[1] > limit, way[1]))
    return between(check, least, most, limit, evidence)


def _disagreement(
    attempt: Attempt, way: Direction, hop: MoveDetails | None, longest_reported: float
) -> tuple[float, float, str]:
    """The least and the most, in ms, that the report of a hop is off; and what the network saw.

    Of several gaps any may be the longest that can be, within its error.
    """
    outages = [
        outage
        for outage in possible_outages(attempt, way)
        if (outage.unmeasured or any(gap.part == "switchover" for gap in outage.gaps))
        and (hop is None or _is_of(hop, outage))
    ]
    reported, where = longest_reported, ""
    if hop is not None and len(attempt.inside) > 1:
        where = f"hop {hop.hop}: "
        if hop.reported_downtime_ms is not None:
            reported = hop.reported_downtime_ms
    seen = [gap for outage in outages for gap in outage.gaps if gap.part == "switchover"]
    known = max(seen, key=lambda gap: gap.length_ns, default=None)
    longest_ms = max((outage.most_ms for outage in outages), default=0.0)
    if known is not None:
        shortest, length = max(gap.least_ns for gap in seen) / 1e6, longest_ms
        observed = f"{way} {known.length_ms:.1f} ± {known.error_ns / 1e6:.1f} ms"
        if math.isinf(length):
            observed += ", or more"
    elif outages:
        shortest, length = 0.0, longest_ms
        observed = f"{way} no switchover gap, but stretches of up to {length:.1f} ms are not known"
    elif (seen_from := attempt.seen_from_ms(way)) is not None:
        shortest, length = 0.0, seen_from
        observed = f"{way} no switchover gap beyond the floor of {length:.1f} ms"
    else:
        shortest, length = 0.0, math.inf
        observed = f"{way} no switchover gap, but no floor to say from which length on"
    least = max(0.0, shortest - reported, reported - length)
    most = max(abs(shortest - reported), abs(length - reported))
    return least, most, f"{where}reported {reported:.1f} ms, seen {observed}"


def _is_of(hop: MoveDetails, outage: PossibleOutage) -> bool:
    """Whether an outage touches the stretch of the axis that is a hop's."""
    after_begin = hop.begin_ns is None or outage.end_ns > hop.begin_ns
    return after_begin and (hop.end_ns is None or outage.begin_ns < hop.end_ns)


def announce_sent(attempt: Attempt) -> Verdict | None:
    """The fabric saw an announcement soon after the guest ran, and none before; on every hop.

    Looks at the first announcement on each hop; needs announcements of each hop.
    """
    check, limit = "announce.sent", attempt.case.expect.announce_within_ms
    if limit is None:
        return None
    results = [(_announced_in_time(hop, limit), hop) for hop in attempt.inside]
    results.sort(key=lambda row: ("fail", "unmeasured", "pass").index(row[0]))
    if not results:
        return unmeasured(check, _with_reasons(attempt, "no move was recorded in detail"), limit)
    result, hop = results[0]
    first, error = hop.first_announce_ms, hop.announce_error_ms
    told = f"{first:.1f} ± {error:.1f}" if first is not None and error else ""
    return Verdict(
        check=check,
        result=result,
        measured=told or ("none" if first is None else f"{first:.1f}"),
        limit=f"0 to {limit:g}",
        unit="ms",
        evidence=_announce_sentence(attempt, hop, result),
    )


def _announced_in_time(hop: MoveDetails, limit: float) -> CheckResult:
    """Of one hop; where none was heard, by how long it was listened for one."""
    first, error = hop.first_announce_ms, hop.announce_error_ms
    if first is None:
        listened_ms = hop.listened_ms if hop.announced == 0 else None
        enough = listened_ms is not None and listened_ms - (error or 0.0) > limit
        return "fail" if enough else "unmeasured"
    least, most = first - (error or 0.0), first + (error or 0.0)
    if most < 0 or least > limit:
        return "fail"
    return "pass" if error is not None and least >= 0 and most <= limit else "unmeasured"


def _announce_sentence(attempt: Attempt, hop: MoveDetails, result: CheckResult) -> str:
    first = hop.first_announce_ms
    if result == "unmeasured" and first is None:
        listened = hop.listened_ms
        what = "" if listened is None else f", heard none in {listened:.0f} ms"
        return _with_reasons(attempt, f"hop {hop.hop}: not measured{what}")
    evidence = f"hop {hop.hop}: {hop.announced} announcements after the resume"
    if first is not None and result == "fail" and first < 0:
        return f"{evidence}, the first before it ran"
    if result == "unmeasured":
        return f"{evidence}; whether the first came too early or too late is within the error"
    return evidence


BEST_FIRST: tuple[DirtyMethod, ...] = ("dirty-ring", "dirty-bitmap", "page-sampling")


def dirty_rate(attempt: Attempt) -> Verdict | None:
    """Before the move the best method measured what the guest wrote meanwhile, by its own count.

    What it was asked to write is not the truth: an emulated guest may not come to write as much.
    Looks at the rate measured before the move; needs a rate to write at, a measured rate,
    the guest's count.
    """
    check, limit = "dirty.rate", attempt.case.expect.dirty_rate_within
    if limit is None:
        return None
    workload = attempt.case.workload
    if reason := needs.SET_RATE.missing(attempt) or needs.MEASURED_RATE.missing(attempt):
        return unmeasured(check, reason, limit, "share")
    best, rate_mib_s = _best(attempt.dirty_rates or ())
    wrote = best.written_mib_s
    evidence = f"by {best.method}: {rate_mib_s:g} ± {best.error_mib_s:.1f} MiB/s"
    if not wrote:
        what = "wrote nothing" if wrote == 0 else "did not report what it wrote"
        return unmeasured(check, f"{evidence}; the guest {what} meanwhile", limit, "share")
    off, error = abs(rate_mib_s - wrote) / wrote, best.error_mib_s / wrote
    evidence += f", the guest wrote {wrote:.1f} of {workload.dirty_mib_s:g}"
    if best.method == "page-sampling":
        evidence += "; the error is twice the deviation of a random sample, and QEMU's rounding"
    return between(check, off - error, off + error, limit, evidence, "share")


def _best(rates: Iterable[DirtyRate]) -> tuple[DirtyRate, float]:
    """Of those measured before the move that by the best method, with its MiB/s."""
    before = [rate for rate in rates if rate.when == "before" and rate.method in BEST_FIRST]
    known = [(rate, rate.mib_s) for rate in before if rate.mib_s is not None]
    return min(known, key=lambda row: BEST_FIRST.index(row[0].method))


def _hop_prefix(attempt: Attempt, hop: MoveDetails) -> str:
    """``hop N: `` where an attempt has several hops, else nothing."""
    return f"hop {hop.hop}: " if len(attempt.inside) > 1 else ""


def _with_reasons(attempt: Attempt, what: str) -> str:
    """``what`` is missing, and every reason on record."""
    return "; ".join((what, *needs.unseen_reasons(attempt)))
