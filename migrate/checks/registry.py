"""From an attempt to its verdicts: a check is one function, and one line of ``CHECKS``.

A limit that is not set makes no verdict. What could not be measured is ``unmeasured``, never a
pass; it fails the attempt unless ``allow_unmeasured`` names the check. Nothing is ranked inside
its own error: a check fails if the measured value less its error is over the limit, passes if the
value and its error are within it, and is ``unmeasured`` if the limit lies between the two.

An attempt that is expected to abort is checked like any other: memory, tcp and device are asked of
whoever holds the guest. Where the guest is expected to be gone (``held_by = []``), there is nobody
to ask, and these make no verdict, nor does backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from migrate.checks import basic, failover, guest, move
from migrate.model import Attempt, Verdict


@dataclass(frozen=True, slots=True)
class Check:
    """A check by the name of its verdict; ``run`` gives None where a case does not ask for it.

    ``key`` is the key of a case's ``expect`` that it is asked by; empty: always.
    """

    name: str
    run: Callable[[Attempt], Verdict | None]
    key: str
    passes_if: str


CHECKS = (
    Check("outcome", basic.outcome, "outcome", "the attempt ended as expected"),
    Check("held-by", basic.held_by, "held_by", "the guest runs on exactly these hosts"),
    Check("measured", basic.measured, "", "gaps, streams and the floor were measured"),
    Check("outage.egress", basic.outage_egress, "outage_egress_ms", "the longest gap is within it"),
    Check(
        "outage.ingress", basic.outage_ingress, "outage_ingress_ms", "the longest gap is within it"
    ),
    Check("stall", basic.stall, "stall_ms", "the guest's longest stall is within it"),
    Check("downtime", basic.downtime, "downtime_ms", "the hypervisor's figure is within it"),
    Check("total", basic.total_time, "total_ms", "the hypervisor's figure is within it"),
    Check("memory", guest.memory, "memory", "every page that was written reads back"),
    Check("tcp", guest.tcp, "tcp", "all connections are alive, none was reset"),
    Check("device", guest.device, "device", "the guest's interface is as it was before"),
    Check("network", guest.network, "network", "packets arrive each way at the end"),
    Check("carried-by", failover.carried_by, "primary", "a failover pair's primary carries"),
    Check("backend", guest.backend, "backend_fails", "QEMU logs a failing backend if expected"),
    Check("handoff.equal", move.handoff_equal, "handoff", "only allowed differences in devices"),
    Check("ring.sound", move.ring_sound, "rings", "no virtqueue breaks a rule"),
    Check(
        "downtime.explained",
        move.downtime_explained,
        "explained_share",
        "at least this share of the longest gap each way is explained",
    ),
    Check(
        "reported.agrees",
        move.reported_agrees,
        "reported_within_ms",
        "reported downtime is this near to the longest switchover gap",
    ),
    Check(
        "announce.sent",
        move.announce_sent,
        "announce_within_ms",
        "the fabric sees an announcement by then after the resume, and none before",
    ),
    Check("dirty.rate", move.dirty_rate, "dirty_rate_within", "the workload's rate within a share"),
    Check("clean", basic.clean, "", "nothing was left over"),
)


def run_checks(attempt: Attempt) -> tuple[Verdict, ...]:
    """A verdict for every check that the case asks for, in the order of ``CHECKS``."""
    return tuple(verdict for check in CHECKS if (verdict := check.run(attempt)) is not None)
