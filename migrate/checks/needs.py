"""Parts of the findings that checks need to have seen: without them none may pass.

A check can fail without a part: one gap that is too long is too long, whatever else was not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from migrate.model import Attempt, MoveDetails


@dataclass(frozen=True, slots=True)
class Need:
    """A part of the findings by its name in documentation.

    ``missing`` says why an attempt does not have it; empty: it has.
    """

    name: str
    missing: Callable[[Attempt], str]


def _part(name: str, field: str, reason: str) -> Need:
    """A field of the findings that is None where it was not measured."""
    return Need(name, lambda attempt: reason if getattr(attempt, field) is None else "")


def on_every_hop(name: str, missing: Callable[[MoveDetails], str]) -> Need:
    """A detail of each move; an attempt of which no move was looked into has none."""

    def of_all(attempt: Attempt) -> str:
        several = len(attempt.inside) > 1
        reasons = [
            f"hop {hop.hop}: {reason}" if several else reason
            for hop in attempt.inside
            if (reason := missing(hop))
        ]
        if not attempt.inside:
            reasons = ["no move was looked into"]
        return "; ".join((*reasons, *unseen_reasons(attempt))) if reasons else ""

    return Need(name, of_all)


def unseen_reasons(attempt: Attempt) -> Iterator[str]:
    """Every reason on record why a detail of a move is not available, once."""
    yield from dict.fromkeys(reason for hop in attempt.inside for reason in hop.unseen)


UNCOMPARED = "expect.error is not set, so what was said was compared with nothing"
EXPECTED_ERROR = Need(
    "an expected error",
    lambda attempt: "" if attempt.case.expect.error is not None else UNCOMPARED,
)
LEFTOVERS = _part("a search for leftovers", "leftovers", "nobody looked for leftovers")
GAPS = _part("the gaps", "gaps", "there are no gaps on record")
STREAMS = _part("the streams' accounts", "streams", "no streams")
FLOOR = _part("the floor", "floor", "no floor to say from which length on a gap is seen")
STALLS = _part("the guest's clock", "stalls", "the guest's clock and tick could not be had")
NIC_BEFORE = _part(
    "the interface before", "nic_before", "the guest's interface was not read before the move"
)
NIC_AFTER = _part(
    "the interface after", "nic_after", "the guest's interface was not read after the move"
)
BACKEND_LOG = _part(
    "QEMU's log", "backend_failed", "the log of the QEMU that has the guest was not read"
)
CARRIERS = _part("the log of carriers", "carriers", "the guest could not be asked what carries")
PATTERN = _part("the pattern read back", "memory", "the pattern was not read back")
CONNECTIONS = _part("an account of connections", "tcp", "the connections were not asked about")
EXPLANATION = _part("an explanation", "explained", "no gaps to explain")


def _reported(attempt: Attempt, field: str) -> str:
    known = getattr(attempt.reported, field) is not None
    return "" if known else "the hypervisor did not report it"


DOWNTIME = Need("the downtime reported", lambda attempt: _reported(attempt, "downtime_ms"))
TOTAL = Need("the total time reported", lambda attempt: _reported(attempt, "total_ms"))
PLACED = on_every_hop(
    "events on the axis",
    lambda hop: "" if hop.placed else "not all of its events are placed on the axis",
)
