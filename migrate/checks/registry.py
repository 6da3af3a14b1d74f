"""From an attempt to its verdicts: a check is one function, and one line of ``CHECKS``.

A limit that is not set makes no verdict. What could not be measured is ``unmeasured``, never a
pass; it fails the attempt unless ``allow_unmeasured`` names the check. Nothing is ranked inside
its own error: a check fails if the measured value less its error is over the limit, passes if the
value and its error are within it, and is ``unmeasured`` if the limit lies between the two.

No check passes without having seen all that it speaks of: what it ``needs`` is asked of each
attempt that it would pass, and what is missing makes it ``unmeasured``. It may fail without: one
gap that is too long is too long, whatever else was not seen.

An attempt that is expected to abort is checked like any other: memory, tcp and device are asked of
whoever holds the guest. Where the guest is expected to be gone (``held_by = []``), there is nobody
to ask, and these make no verdict, nor does backend.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from migrate.checks import basic, failover, guest, loss, move, needs
from migrate.checks.needs import Need
from migrate.model import Attempt, Verdict


@dataclass(frozen=True, slots=True)
class Check:
    """A check by the name of its verdict; ``run`` gives None where a case does not ask for it.

    ``key`` is the key of a case's ``expect`` that it is asked by; empty: always. The docstring of
    ``run`` says what it looks at, and ``needs`` by their names: ``Looks at …; needs …, ….``
    """

    name: str
    run: Callable[[Attempt], Verdict | None]
    key: str
    passes_if: str
    needs: tuple[Need, ...] = ()

    @property
    def looks_at(self) -> str:
        """What it looks at, by its docstring."""
        return self._sight()[0]

    @property
    def needs_by_docstring(self) -> tuple[str, ...]:
        """Names of what it needs to have seen, by its docstring."""
        names = self._sight()[1]
        return () if names == "nothing else" else tuple(names.split(", "))

    def _sight(self) -> tuple[str, str]:
        text = " ".join((self.run.__doc__ or "").split())
        sentence = re.search(r"Looks at (.+?); needs (.+?)\.(?: |$)", text)
        if sentence is None:
            raise ValueError(f"the docstring of {self.name} lacks 'Looks at …; needs ….'")
        return sentence[1], sentence[2]

    def judge(self, attempt: Attempt) -> Verdict | None:
        """The verdict; a pass only on an attempt that has all of ``needs``."""
        verdict = self.run(attempt)
        if verdict is None or verdict.result != "pass":
            return verdict
        missing = [reason for need in self.needs if (reason := need.missing(attempt))]
        if not missing:
            return verdict
        evidence = "; ".join((*missing, verdict.evidence))
        return verdict.model_copy(update={"result": "unmeasured", "evidence": evidence})


CHECKS = (
    Check("outcome", basic.outcome, "outcome", "the attempt ended as expected"),
    Check(
        "error",
        basic.error,
        "error",
        "the error message matches the pattern",
        (needs.EXPECTED_ERROR,),
    ),
    Check("held-by", basic.held_by, "held_by", "the guest runs on exactly these hosts"),
    Check(
        "measured",
        basic.measured,
        "",
        "gaps, streams and the floor were measured, and the floor served most packets",
        (needs.GAPS, needs.STREAMS, needs.FLOOR, needs.packets_on_floor(), needs.KNOWN),
    ),
    Check(
        "outage.egress",
        basic.outage_egress,
        "outage_egress_ms",
        "the longest gap is within the limit",
        (needs.GAPS, needs.FLOOR),
    ),
    Check(
        "outage.ingress",
        basic.outage_ingress,
        "outage_ingress_ms",
        "the longest gap is within the limit",
        (needs.GAPS, needs.FLOOR),
    ),
    Check(
        "stall",
        basic.stall,
        "stall_ms",
        "the guest's longest stall is within the limit",
        (needs.STALLS, needs.SHORTEST_STALL),
    ),
    Check(
        "downtime",
        basic.downtime,
        "downtime_ms",
        "the hypervisor's figure is within the limit",
        (needs.DOWNTIME,),
    ),
    Check(
        "total",
        basic.total_time,
        "total_ms",
        "the hypervisor's figure is within the limit",
        (needs.TOTAL,),
    ),
    Check(
        "memory",
        guest.memory,
        "memory",
        "every page that was written reads back",
        (needs.PATTERN, needs.WRITES),
    ),
    Check(
        "tcp",
        guest.tcp,
        "tcp",
        "each carried data since the move, none was reset",
        (needs.CONNECTIONS, needs.OPENED, needs.ANSWERED),
    ),
    Check(
        "device",
        guest.device,
        "device",
        "the guest's interface is as it was before",
        (needs.NIC_BEFORE, needs.NIC_AFTER),
    ),
    Check(
        "network",
        guest.network,
        "network",
        "most packets arrive each way at the end",
        (needs.GAPS, needs.ENDED, needs.packets_after()),
    ),
    Check(
        "loss.egress",
        loss.loss_egress,
        "loss_within",
        "no window loses a larger share than the floor, by more than it",
        (needs.packets_on_floor("egress"), needs.packets_after("egress")),
    ),
    Check(
        "loss.ingress",
        loss.loss_ingress,
        "loss_within",
        "no window loses a larger share than the floor, by more than it",
        (needs.packets_on_floor("ingress"), needs.packets_after("ingress")),
    ),
    Check(
        "carried-by",
        failover.carried_by,
        "primary",
        "a failover pair's primary carries",
        (needs.CARRIERS,),
    ),
    Check(
        "backend",
        guest.backend,
        "backend_fails",
        "QEMU logs a failing backend if expected",
        (needs.BACKEND_LOG,),
    ),
    Check(
        "handoff.equal",
        move.handoff_equal,
        "handoff",
        "only allowed differences in devices",
        (needs.HANDOFF,),
    ),
    Check("ring.sound", move.ring_sound, "rings", "no virtqueue breaks a rule", (needs.QUEUES,)),
    Check(
        "downtime.explained",
        move.downtime_explained,
        "explained_share",
        "at least this share of the longest gap each way is explained",
        (needs.GAPS, needs.FLOOR, needs.EXPLANATION, needs.ENDED, needs.LONGEST),
    ),
    Check(
        "reported.agrees",
        move.reported_agrees,
        "reported_within_ms",
        "reported downtime is this near to the longest switchover gap",
        (needs.DOWNTIME, needs.GAPS, needs.FLOOR, needs.PLACED),
    ),
    Check(
        "announce.sent",
        move.announce_sent,
        "announce_within_ms",
        "the fabric sees an announcement by then after the resume, and none before",
        (needs.ANNOUNCEMENTS,),
    ),
    Check(
        "dirty.rate",
        move.dirty_rate,
        "dirty_rate_within",
        "the rate measured is what the guest wrote, within a share",
        (needs.SET_RATE, needs.MEASURED_RATE, needs.WRITTEN),
    ),
    Check("clean", basic.clean, "", "nothing was left over", (needs.LEFTOVERS,)),
)


def run_checks(attempt: Attempt) -> tuple[Verdict, ...]:
    """A verdict for every check that the case asks for, in the order of ``CHECKS``."""
    return tuple(verdict for check in CHECKS if (verdict := check.judge(attempt)) is not None)
