"""Verdicts on what became of the guest; none where it is expected to be gone."""

from __future__ import annotations

from migrate.analysis.excess_loss import unserved_after
from migrate.checks.verdicts import guest_expected, listed, unmeasured
from migrate.model import DIRECTIONS, Attempt, Direction, Nic, Verdict


def memory(attempt: Attempt) -> Verdict | None:
    """The pattern that was written while the guest moved reads back.

    Looks at every page of the pattern after the move; needs the pattern read back, writes to
    the pattern.
    """
    if not (
        attempt.case.expect.memory
        and attempt.case.workload.dirty_mib > 0
        and guest_expected(attempt)
    ):
        return None
    check = attempt.memory
    if check is None:
        return unmeasured("memory", "the pattern was not read back")
    if check.wrong_page is None:
        evidence = f"all {check.pages} pages are right after {check.writes} writes"
        return Verdict(
            check="memory", result="pass", measured="intact", limit="intact", evidence=evidence
        )
    return Verdict(
        check="memory",
        result="fail",
        measured="wrong",
        limit="intact",
        evidence=f"page {check.wrong_page} of {check.pages} is wrong after {check.writes} writes: "
        f"{check.expected} expected, {check.found} found",
    )


def tcp(attempt: Attempt) -> Verdict | None:
    """Connections that were opened before the move are alive, and none was reset.

    Alive is a connection on which a byte came back after the move: an open socket tells nothing.
    Looks at every connection after the move; needs the TCP connections, an open connection,
    a byte back on each.
    """
    if not (
        attempt.case.expect.tcp
        and attempt.case.workload.tcp_connections > 0
        and guest_expected(attempt)
    ):
        return None
    check = attempt.tcp
    if check is None:
        return unmeasured("tcp", "the TCP connections were not queried")
    alive = check.alive if check.answered is None else min(check.alive, check.answered)
    failed = check.resets or alive < check.opened
    silent = "" if check.answered is None else f"; {check.answered} carried data since the move"
    return Verdict(
        check="tcp",
        result="fail" if failed else "pass",
        measured=f"{alive} alive, {check.resets} reset",
        limit=f"{check.opened} alive, 0 reset",
        unit="connections",
        evidence=f"{check.alive} of {check.opened} connections are open, {check.resets} were "
        f"reset{silent}; the longest wait for a byte was {check.longest_stall_ms:.0f} ms",
    )


_SAME = ("features", "mac", "rx_queues", "tx_queues", "driver", "mtu", "carrier")


def device(attempt: Attempt) -> Verdict | None:
    """The guest sees the same interface before and after.

    Looks at the interface as the guest's kernel has it; needs the interface before, the
    interface after.
    """
    if not (attempt.case.expect.device and guest_expected(attempt)):
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
    return f"features differ in bits {listed(tuple(map(str, bits)))}"


def network(attempt: Attempt) -> Verdict | None:
    """Packets arrive again, each way, before the listening ends, and most of them.

    A direction is dead if nothing was served in the last half of the time (``settle_s``) that was
    listened after the move, or less than half of what was sent after it, outages apart: a move may
    succeed, and leave it so. Looks at all gaps each way and the packets after the move; needs
    the gaps, gaps that had ended, packets after the move.
    """
    if not (attempt.case.expect.network and guest_expected(attempt)):
        return None
    if attempt.gaps is None:
        return unmeasured("network", "no gaps")
    dead = tuple(reason for way in DIRECTIONS if (reason := _dead(attempt, way)))
    half_lost = [
        f"{way}: {unserved.value:.0%} of the packets after the move"
        for way in DIRECTIONS
        if (unserved := unserved_after(attempt.loss or (), way)) and unserved.high > MOST
    ]
    return Verdict(
        check="network",
        result="fail" if dead else "unmeasured" if half_lost else "pass",
        measured="dead" if dead else "not known" if half_lost else "works",
        limit="works",
        evidence=listed(dead)
        if dead
        else f"not served: {listed(tuple(half_lost))}"
        if half_lost
        else "both ways",
    )


MOST = 0.5
"""A network serves more packets than it does not."""


def _dead(attempt: Attempt, way: Direction) -> str:
    """Why a direction does not work; empty: nothing shows that."""
    least_ms = attempt.case.workload.settle_s * 1e3 / 2
    silent = [gap for gap in attempt.gaps or () if gap.direction == way and gap.open_ended]
    if silent and silent[0].least_ns / 1e6 >= least_ms:
        return f"traffic did not come back: {way} for at least {silent[0].length_ms:.0f} ms"
    unserved = unserved_after(attempt.loss or (), way)
    if unserved is not None and unserved.low > MOST:
        return f"{unserved.value:.0%} of {way} after the move were not served"
    return ""


def backend(attempt: Attempt) -> Verdict | None:
    """QEMU logs no failing backend: a move may succeed, and leave the interface dead.

    Looks at the log of the QEMU that has the guest at the end; needs QEMU's log.
    """
    if not guest_expected(attempt):
        return None
    if attempt.backend_failed is None:
        return unmeasured("backend", "the log of the guest's QEMU was not read")
    fails = attempt.case.expect.backend_fails
    complaints = "; ".join(attempt.backend_failed)
    return Verdict(
        check="backend",
        result="pass" if bool(complaints) == fails else "fail",
        measured="failed" if complaints else "works",
        limit="failed" if fails else "works",
        evidence=complaints or "QEMU logged no backend error",
    )
