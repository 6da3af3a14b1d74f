"""From an attempt to its verdicts: one small function a check, all of them in ``CHECKS``.

=============== ========================================= ====================================
check           passes if                                 asked by (``expect`` of a case)
=============== ========================================= ====================================
outcome         the attempt ended as expected             always (``outcome``)
held-by         the guest runs on exactly these hosts     always (``held_by``)
measured        gaps, streams and the floor were had      always
outage.egress   the longest gap is within the limit       ``outage_egress_ms``
outage.ingress  the longest gap is within the limit       ``outage_ingress_ms``
stall           the guest's longest stall is within it    ``stall_ms``
downtime        the hypervisor's own figure is within it  ``downtime_ms``
total           the hypervisor's own figure is within it  ``total_ms``
memory          every page that was written reads back    ``memory``; not with ``dirty_mib`` 0
tcp             all connections are alive, none was reset ``tcp``; not with no connection
device          features, MAC, queues, driver, MTU and    ``device``
                carrier are as they were before
network         packets arrive each way at the end        ``network``
backend         QEMU's log tells of no backend that       always (``backend_fails``: of one)
                failed the guest
clean           nothing was left over                     always
=============== ========================================= ====================================

And of what went on inside of the moves (:mod:`migrate.checks.move`):

================== ====================================== ====================================
handoff.equal      no unlawful difference in the state of ``handoff``
                   any device that was compared
ring.sound         no virtqueue breaks a rule             ``rings``
downtime.explained what was recorded tells of so much of  ``explained_share``
                   the longest gap each way
reported.agrees    reported downtime is near the longest  ``reported_within_ms``
                   switchover gap
announce.sent      the fabric hears the guest soon after  ``announce_within_ms``
                   it runs, and not before
dirty.rate         the guest dirties its memory as fast   ``dirty_rate_within``
                   as the workload sets it
================== ====================================== ====================================

A limit that is not set makes no verdict. What could not be measured is ``unmeasured``, never a
pass; it fails the attempt unless ``allow_unmeasured`` names the check. Nothing is ranked inside
its own error: a check fails if the measured value less its error is over the limit, passes if the
value and its error are within it, and is ``unmeasured`` if the limit lies between the two.

An attempt that is expected to abort is judged like any other: memory, tcp and device are asked of
whoever holds the guest. Where the guest is expected to be gone (``held_by = []``), there is nobody
to ask, and these make no verdict, nor does backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from migrate.analysis.outage import longest_gap, total_gap_ns
from migrate.checks.move import (
    announce_sent,
    dirty_rate,
    downtime_explained,
    handoff_equal,
    reported_agrees,
    ring_sound,
    unmeasured,
)
from migrate.model import Attempt, Direction, Nic, Stall, Verdict

Result = Literal["pass", "fail", "unmeasured"]
Check = Callable[[Attempt], Verdict | None]


def judge(attempt: Attempt) -> tuple[Verdict, ...]:
    """One verdict for every check that the case asks for, in the order of ``CHECKS``."""
    return tuple(verdict for check in CHECKS if (verdict := check(attempt)) is not None)


# --- how it ended -------------------------------------------------------------------------------


def outcome(attempt: Attempt) -> Verdict:
    """Ended as expected; the evidence is the error in the words of who reported it."""
    error = attempt.error
    said = ""
    if error:
        where = f" on {error.host}" if error.host else ""
        said = f"{error.tried}{where}: {error.said}" if error.said else f"{error.tried}{where}"
    expected = attempt.case.expect.outcome
    return Verdict(
        check="outcome",
        result="pass" if attempt.outcome == expected else "fail",
        measured=attempt.outcome,
        limit=expected,
        evidence=said,
    )


def held_by(attempt: Attempt) -> Verdict:
    """Both and none are the worst that a migration test can find: they are said loudly."""
    names = {"source": attempt.source, "target": attempt.target}
    expected = {names[side] for side in attempt.case.expect.held_by}
    held = attempt.held_by
    right = set(held) == expected
    if len(set(held)) > 1:
        evidence = f"THE GUEST RUNS ON {len(set(held))} HOSTS AT ONCE: {_listed(held)}"
    elif not held:
        evidence = "the guest runs nowhere, as expected" if right else "THE GUEST RUNS NOWHERE"
    else:
        evidence = f"the guest runs on {held[0]}"
    return Verdict(
        check="held-by",
        result="pass" if right else "fail",
        measured=_listed(held),
        limit=_listed(tuple(sorted(expected))),
        evidence=evidence,
    )


def clean(attempt: Attempt) -> Verdict:
    """What was done is undone."""
    left = attempt.leftovers
    if left is None:
        return unmeasured("clean", "nobody looked for leftovers")
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
    """Numbers without their floor mean nothing: all three, or it is not measured."""
    parts = {"gaps": attempt.gaps, "streams": attempt.streams, "floor": attempt.floor}
    missing = [name for name, part in parts.items() if part is None]
    if missing:
        return unmeasured("measured", f"no {', no '.join(missing)}")
    assert attempt.floor is not None
    floor = attempt.floor
    return Verdict(
        check="measured",
        result="pass",
        measured=", ".join(parts),
        limit=", ".join(parts),
        evidence=f"floor {floor.egress_ms:.1f} ms egress, {floor.ingress_ms:.1f} ms ingress",
    )


def outage_egress(attempt: Attempt) -> Verdict | None:
    """The longest gap from the guest to its peer."""
    return _outage(attempt, "egress", attempt.case.expect.outage_egress_ms)


def outage_ingress(attempt: Attempt) -> Verdict | None:
    """The longest gap from the peer to the guest."""
    return _outage(attempt, "ingress", attempt.case.expect.outage_ingress_ms)


def _outage(attempt: Attempt, direction: Direction, limit: float | None) -> Verdict | None:
    check = f"outage.{direction}"
    if limit is None:
        return None
    if attempt.gaps is None:
        return unmeasured(check, "there are no gaps on record", limit)
    gap = longest_gap(attempt.gaps, direction)
    if gap is None:
        return _no_gap(attempt, check, direction, limit)
    evidence = _gap_sentence(attempt, direction)
    verdict = _within(check, gap.length_ms, gap.error_ns / 1e6, limit, evidence)
    if gap.open_ended and verdict.result == "pass":
        return unmeasured(check, f"{evidence}; how long it went on is not known", limit)
    return verdict


def _no_gap(attempt: Attempt, check: str, direction: Direction, limit: float) -> Verdict:
    """No gap means none above what the meter can see here."""
    seen_ms = attempt.seen_from_ms(direction)
    if seen_ms is None:
        return unmeasured(check, "no gap, but no floor to say from which length on", limit)
    if seen_ms > limit:
        return unmeasured(check, f"a gap below the floor of {seen_ms:.1f} ms is not seen", limit)
    return Verdict(
        check=check,
        result="pass",
        measured=f"≤ {seen_ms:.1f}",
        limit=f"{limit:g}",
        unit="ms",
        evidence=f"no {direction} gap beyond the floor of {seen_ms:.1f} ms",
    )


def _gap_sentence(attempt: Attempt, direction: Direction) -> str:
    gap = longest_gap(attempt.gaps, direction)
    assert gap is not None
    after_s = (gap.begin_ns - attempt.begin_ns) / 1e9
    at_least = "at least " if gap.open_ended else ""
    during = f" during {_listed(gap.phases)}" if gap.phases else " with no migration going on"
    if not gap.phases and not all(hop.placed for hop in attempt.inside):
        during = " (not all events are on record: during what is not known)"
    count = sum(other.direction == direction for other in attempt.gaps or ())
    others = f"; {count} gaps, together {total_gap_ns(attempt.gaps, direction) / 1e6:.1f} ms"
    return (
        f"{direction} gap of {at_least}{gap.length_ms:.1f} ± {gap.error_ns / 1e6:.1f} ms, "
        f"{after_s:.3f} s into the attempt{during}: {gap.lost} lost, {gap.late} late"
        f"{others if count > 1 else ''}"
    )


def stall(attempt: Attempt) -> Verdict | None:
    """The longest that the guest's own clock stood still, or its tick was late."""
    limit = attempt.case.expect.stall_ms
    if limit is None:
        return None
    if attempt.stalls is None:
        return unmeasured("stall", "the guest's clock and tick could not be had", limit)
    worst: Stall | None = max(attempt.stalls, key=lambda one: one.length_ns, default=None)
    if worst is None:
        return _within("stall", 0.0, 0.0, limit, "the guest's clock neither stood still nor jumped")
    return _within(
        "stall",
        worst.length_ns / 1e6,
        worst.error_ns / 1e6,
        limit,
        f"the guest's clock {worst.kind.replace('-', ' ')}, "
        f"{(worst.begin_ns - attempt.begin_ns) / 1e9:.3f} s into the attempt",
    )


def downtime(attempt: Attempt) -> Verdict | None:
    """What the hypervisor says; what the network saw is judged beside it."""
    return _reported("downtime", attempt.reported.downtime_ms, attempt.case.expect.downtime_ms)


def total_time(attempt: Attempt) -> Verdict | None:
    """What the hypervisor says of the whole move."""
    return _reported("total", attempt.reported.total_ms, attempt.case.expect.total_ms)


def _reported(check: str, value_ms: float | None, limit: float | None) -> Verdict | None:
    if limit is None:
        return None
    if value_ms is None:
        return unmeasured(check, "the hypervisor did not report it", limit)
    return _within(check, value_ms, 0.0, limit, "as reported by the hypervisor")


# --- what became of the guest -------------------------------------------------------------------


def memory(attempt: Attempt) -> Verdict | None:
    """The pattern that was written while the guest moved."""
    if not _asked(attempt, attempt.case.expect.memory and attempt.case.workload.dirty_mib > 0):
        return None
    found = attempt.memory
    if found is None:
        return unmeasured("memory", "the pattern was not read back")
    if not found.pages or not found.writes:
        return unmeasured("memory", f"{found.writes} writes to {found.pages} pages prove nothing")
    if found.wrong_page is None:
        evidence = f"all {found.pages} pages are right after {found.writes} writes"
        return Verdict(
            check="memory", result="pass", measured="intact", limit="intact", evidence=evidence
        )
    return Verdict(
        check="memory",
        result="fail",
        measured="wrong",
        limit="intact",
        evidence=f"page {found.wrong_page} of {found.pages} is wrong after {found.writes} writes: "
        f"{found.expected} expected, {found.found} found",
    )


def tcp(attempt: Attempt) -> Verdict | None:
    """Connections that were opened before the move."""
    if not _asked(attempt, attempt.case.expect.tcp and attempt.case.workload.tcp_connections > 0):
        return None
    found = attempt.tcp
    if found is None:
        return unmeasured("tcp", "the connections were not asked about")
    if not found.opened:
        return unmeasured("tcp", "no connection could be opened before the move")
    return Verdict(
        check="tcp",
        result="pass" if found.alive == found.opened and not found.resets else "fail",
        measured=f"{found.alive} alive, {found.resets} reset",
        limit=f"{found.opened} alive, 0 reset",
        unit="connections",
        evidence=f"{found.alive} of {found.opened} connections are alive, {found.resets} were "
        f"reset; the longest wait for a byte was {found.longest_stall_ms:.0f} ms",
    )


_SAME = ("features", "mac", "rx_queues", "tx_queues", "driver", "mtu", "carrier")


def device(attempt: Attempt) -> Verdict | None:
    """The interface as the guest saw it before and after."""
    if not _asked(attempt, attempt.case.expect.device):
        return None
    before, after = attempt.nic_before, attempt.nic_after
    if before is None or after is None:
        when = "before" if before is None else "after"
        return unmeasured("device", f"the guest's interface was not read {when} the move")
    changed = [_change(name, before, after) for name in _SAME if _differs(name, before, after)]
    return Verdict(
        check="device",
        result="fail" if changed else "pass",
        measured="changed" if changed else "same",
        limit="same",
        evidence="; ".join(changed) or f"{after.driver} {after.mac}: as it was before",
    )


def _differs(name: str, before: Nic, after: Nic) -> bool:
    return bool(getattr(before, name) != getattr(after, name))


def _change(name: str, before: Nic, after: Nic) -> str:
    old, new = getattr(before, name), getattr(after, name)
    if name != "features" or len(old) != len(new):
        return f"{name} was {old!r}, is {new!r}"
    bits = [bit for bit, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]]
    return f"features differ in bits {_listed(tuple(map(str, bits)))}"


def network(attempt: Attempt) -> Verdict | None:
    """Packets arrive again, each way, before the listening ends.

    A direction is dead if nothing was served in the last half of the time (``settle_s``) that was
    listened after the move: a move may succeed, and leave it so.
    """
    if not _asked(attempt, attempt.case.expect.network):
        return None
    if attempt.gaps is None:
        return unmeasured("network", "no gaps")
    least_ns = attempt.case.workload.settle_s * 1e9 / 2
    dead = [gap for gap in attempt.gaps if gap.open_ended and gap.length_ns >= least_ns]
    told = [f"{gap.direction} for at least {gap.length_ms:.0f} ms" for gap in dead]
    return Verdict(
        check="network",
        result="fail" if dead else "pass",
        measured="dead" if dead else "works",
        limit="works",
        evidence=f"nothing arrived any more: {_listed(tuple(told))}" if dead else "both ways",
    )


def backend(attempt: Attempt) -> Verdict | None:
    """A move may be a success to all who made it, and leave the interface dead."""
    if not _asked(attempt, True):
        return None
    if attempt.backend_failed is None:
        return unmeasured("backend", "the log of the QEMU that has the guest was not read")
    fails = attempt.case.expect.backend_fails
    said = "; ".join(attempt.backend_failed)
    return Verdict(
        check="backend",
        result="pass" if bool(said) == fails else "fail",
        measured="failed" if said else "works",
        limit="failed" if fails else "works",
        evidence=said or "QEMU complains of nothing",
    )


# --- common to all ------------------------------------------------------------------------------


def _asked(attempt: Attempt, wanted: bool) -> bool:
    """Of a guest that is expected to be gone, nothing can be asked."""
    return wanted and bool(attempt.case.expect.held_by)


def _within(check: str, value: float, error: float, limit: float, evidence: str) -> Verdict:
    """Milliseconds against a limit; nothing is ranked inside its own error."""
    result: Result
    if value - error > limit:
        result = "fail"
    elif value + error <= limit:
        result = "pass"
    else:
        result = "unmeasured"
        evidence += f"; the limit of {limit:g} ms lies inside the error"
    return Verdict(
        check=check,
        result=result,
        measured=f"{value:.1f} ± {error:.1f}" if error else f"{value:.1f}",
        limit=f"{limit:g}",
        unit="ms",
        evidence=evidence,
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


CHECKS: tuple[Check, ...] = (
    outcome,
    held_by,
    measured,
    outage_egress,
    outage_ingress,
    stall,
    downtime,
    total_time,
    memory,
    tcp,
    device,
    network,
    backend,
    handoff_equal,
    ring_sound,
    downtime_explained,
    reported_agrees,
    announce_sent,
    dirty_rate,
    clean,
)
