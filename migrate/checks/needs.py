"""Parts of the findings that checks need to have seen: without them none may pass.

A check can fail without a part: one gap that is too long is too long, whatever else was not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from migrate.model import Attempt, DetailsPart, DeviceHandoff, MoveDetails


@dataclass(frozen=True, slots=True)
class Need:
    """A part of the findings by its name in documentation.

    ``missing`` says why an attempt does not have it; empty: it has.
    """

    name: str
    missing: Callable[[Attempt], str]


MOST_LISTED = 10


def listed(texts: Sequence[str]) -> str:
    """The first ones in a sentence, and how many more there are."""
    more = len(texts) - MOST_LISTED
    return "; ".join((*texts[:MOST_LISTED], *([f"and {more} more"] if more > 0 else [])))


def _part(name: str, field: str, reason: str) -> Need:
    """A field of the findings that is None where it was not measured."""
    return Need(name, lambda attempt: reason if getattr(attempt, field) is None else "")


def on_every_hop(
    name: str, missing: Callable[[MoveDetails], str], part: DetailsPart | None = None
) -> Need:
    """A detail of each move; an attempt of which no move was looked into has none.

    ``part``: whose reasons are told with it; None: all reasons on record.
    """

    def of_all(attempt: Attempt) -> str:
        several = len(attempt.inside) > 1
        reasons = [
            f"hop {hop.hop}: {reason}" if several else reason
            for hop in attempt.inside
            if (reason := missing(hop))
        ]
        if not attempt.inside:
            reasons = ["no move was looked into"]
        return "; ".join((*reasons, *unseen_reasons(attempt, part))) if reasons else ""

    return Need(name, of_all)


def unseen_reasons(attempt: Attempt, part: DetailsPart | None = None) -> Iterator[str]:
    """Every reason on record why a part of a move's details is not available, once; None: any."""
    yield from dict.fromkeys(
        reason
        for hop in attempt.inside
        for reason in (hop.unseen if part is None else hop.reasons(part))
    )


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


def _written(attempt: Attempt) -> str:
    rates = attempt.dirty_rates or ()
    told = any(rate.when == "before" and rate.written_mib_s is not None for rate in rates)
    return "" if told else "the guest did not tell what it wrote"


WRITTEN = Need("the guest's count", _written)
DOWNTIME = Need("the downtime reported", lambda attempt: _reported(attempt, "downtime_ms"))
TOTAL = Need("the total time reported", lambda attempt: _reported(attempt, "total_ms"))
PLACED = on_every_hop(
    "events on the axis",
    lambda hop: "" if hop.placed else "not all of its events are placed on the axis",
)


NETWORK_DEVICE = "/virtio-net"


def _handoff(hop: MoveDetails) -> str:
    """What of the network devices was not compared."""
    devices = hop.devices or ()
    if not any(_is_compared(device) for device in devices):
        return "no device was compared"
    return "; ".join(text for device in devices if (text := _not_compared(device)))


def _is_compared(device: DeviceHandoff) -> bool:
    return device.compared and device.fields_compared != 0


def _not_compared(device: DeviceHandoff) -> str:
    if not _is_compared(device):
        what = device.untold or device.device.endswith(NETWORK_DEVICE)
        return f"{device.device} was not compared" if what else ""
    parts = device.parts_not_compared
    return f"not compared of {device.device}: {', '.join(parts)}" if parts else ""


def _rings(hop: MoveDetails) -> str:
    """Which queues were not read; words on how many were if not all."""
    if not hop.rings:
        return "no ring was read"
    unread = [ring for ring in hop.rings if ring.unread]
    if not unread:
        return ""
    reasons = dict.fromkeys(
        f"queue {ring.queue}: {why}" for ring in unread for why in ring.unchecked
    )
    number, read = len(hop.rings), len(hop.rings) - len(unread)
    return f"rings read: {read} of {number}; {listed(tuple(reasons))}"


HANDOFF = on_every_hop("each network device's state on both ends", _handoff, "devices")
QUEUES = on_every_hop("each of its queues", _rings, "rings")
