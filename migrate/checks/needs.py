"""Parts of the findings that checks need to have seen: without them none may pass.

A check can fail without a part: one gap that is too long is too long, whatever else was not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from migrate.analysis.outage import longest_gap
from migrate.analysis.possible_outages import PossibleOutage, possible_outages
from migrate.model import (
    DIRECTIONS,
    DIRTY_RATE_S,
    Attempt,
    DetailsPart,
    DeviceHandoff,
    Direction,
    LossWindow,
    MoveDetails,
)


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
    """A detail of each move: of as many as the case asks for, if all were completed.

    ``part``: whose reasons are told with it; None: all reasons on record.
    """

    def of_all(attempt: Attempt) -> str:
        several = len(attempt.inside) > 1
        reasons = [
            f"hop {hop.hop}: {reason}" if several else reason
            for hop in attempt.inside
            if (reason := missing(hop))
        ]
        hops, moves = len(attempt.inside), attempt.case.policy.hops
        if attempt.outcome == "completed" and hops < moves:
            reasons.append(f"{hops} of {moves} moves were recorded in detail")
        if not attempt.inside and not reasons:
            reasons = ["no move was recorded in detail"]
        return "; ".join((*reasons, *unseen_reasons(attempt, part))) if reasons else ""

    return Need(name, of_all)


def unseen_reasons(attempt: Attempt, part: DetailsPart | None = None) -> Iterator[str]:
    """Every reason on record why a part of a move's details is not available, once; None: any."""
    yield from dict.fromkeys(
        reason
        for hop in attempt.inside
        for reason in (hop.unseen if part is None else hop.reasons(part))
    )


UNCOMPARED = "expect.error is not set, so the error message was compared with nothing"
EXPECTED_ERROR = Need(
    "an expected error",
    lambda attempt: "" if attempt.case.expect.error is not None else UNCOMPARED,
)

# --- traffic ------------------------------------------------------------------------------------

GAPS = _part("the gaps", "gaps", "no gaps were recorded")
STREAMS = _part("the streams' accounts", "streams", "no streams")
FLOOR = _part(
    "the floor", "floor", "the floor was not measured: how short a gap would be seen is not known"
)


def _going_on(attempt: Attempt) -> list[PossibleOutage]:
    """Outages that may not have ended with the observation."""
    every = (outage for way in DIRECTIONS for outage in possible_outages(attempt, way))
    return [outage for outage in every if math.isinf(outage.most_ms)]


def _not_known_to_the_end(attempt: Attempt) -> str:
    """Directions that were not measured when the observation ended, and why."""
    return "; ".join(
        f"{stretch.direction} is not known to the end: {stretch.reason}"
        for stretch in attempt.unmeasured
        if stretch.open_ended
    )


def _not_measured_to_the_end(attempt: Attempt) -> str:
    """Nobody tells what a guest received that is expected to be gone."""
    return _not_known_to_the_end(attempt) if attempt.case.expect.held_by else ""


KNOWN = Need("both directions until the end", _not_measured_to_the_end)


def _not_ended(attempt: Attempt) -> str:
    """Directions that were silent when the observation ended, or not known, and since when."""
    silent = [
        f"{gap.direction} received nothing for the last {gap.length_ms:.0f} ms, and may be for good"
        for outage in _going_on(attempt)
        for gap in outage.gaps
        if gap.open_ended
    ]
    return "; ".join(filter(None, (*silent, _not_known_to_the_end(attempt))))


ENDED = Need("gaps that had ended", _not_ended)


def _may_be_longer(attempt: Attempt) -> str:
    """Stretches that may hide a longer outage than the longest gap of their direction, or are so
    long a part of it that what is explained falls below the case's share."""
    unexplained = 1 - (attempt.case.expect.explained_share or 1)
    hidden = []
    for way in DIRECTIONS:
        longest = longest_gap(attempt.gaps, way)
        least_ms = (longest.least_ns / 1e6 if longest else attempt.seen_from_ms(way)) or 0.0
        for outage in possible_outages(attempt, way):
            unknown_ms = sum(stretch.length_ns for stretch in outage.unmeasured) / 1e6
            beside = longest in outage.gaps and unknown_ms <= unexplained * least_ms
            if unknown_ms and outage.most_ms > least_ms and not beside:
                hidden += [
                    f"{way} is not known for {stretch.length_ns / 1e6:.0f} ms: {stretch.reason}"
                    for stretch in outage.unmeasured
                ]
    return "; ".join(hidden)


LONGEST = Need("a bound on every gap", _may_be_longer)


def _counted(window: LossWindow, where: str, ways: Sequence[Direction]) -> Need:
    """Packets that were sent in a window, outside of outages, and counted; those ``ways``."""

    def missing(attempt: Attempt) -> str:
        counted = [loss for loss in attempt.loss or () if loss.window == window and loss.sent]
        without = [way for way in ways if way not in {loss.direction for loss in counted}]
        return f"no packets of {', '.join(without)} were counted {where}" if without else ""

    return Need(f"packets {where}", missing)


def packets_on_floor(*ways: Direction) -> Need:
    """Packets with nothing going on."""
    return _counted("floor", "on the floor", ways or DIRECTIONS)


def packets_after(*ways: Direction) -> Need:
    """Packets after the last move."""
    return _counted("after", "after the move", ways or DIRECTIONS)


# --- the guest ----------------------------------------------------------------------------------

STALLS = _part("the guest's clock", "stalls", "the guest's clock and tick were not recorded")
SHORTEST_STALL = _part(
    "the shortest stall that is seen",
    "stalls_seen_from_ms",
    "how short a stall would be seen is not known",
)
NIC_BEFORE = _part(
    "the interface before", "nic_before", "the guest's interface was not read before the move"
)
NIC_AFTER = _part(
    "the interface after", "nic_after", "the guest's interface was not read after the move"
)
BACKEND_LOG = _part("QEMU's log", "backend_failed", "the log of the guest's QEMU was not read")
CARRIERS = _part(
    "the log of carriers",
    "carriers",
    "the guest could not be asked which device carries its traffic",
)
PATTERN = _part("the pattern read back", "memory", "the pattern was not read back")


def _writes(attempt: Attempt) -> str:
    check = attempt.memory
    if check is None or (check.pages and check.writes):
        return ""
    return f"{check.writes} writes to {check.pages} pages prove nothing"


WRITES = Need("writes to the pattern", _writes)
CONNECTIONS = _part("the TCP connections", "tcp", "the TCP connections were not queried")


def _opened(attempt: Attempt) -> str:
    opened = attempt.tcp is None or attempt.tcp.opened
    return "" if opened else "no connection could be opened before the move"


OPENED = Need("an open connection", _opened)


def _answered(attempt: Attempt) -> str:
    known = attempt.tcp is None or attempt.tcp.answered is not None
    return "" if known else "whether they carried data since the move is not known"


ANSWERED = Need("a byte back on each", _answered)

# --- the host's side ----------------------------------------------------------------------------

LEFTOVERS = _part("a search for leftovers", "leftovers", "leftovers were not searched for")


def _reported(field: str, attempt: Attempt) -> str:
    if getattr(attempt.reported, field) is None:
        return "the hypervisor did not report it"
    if attempt.case.policy.method == "save-restore":
        return "libvirt reports on the save alone, not on the restore"
    return ""


DOWNTIME = Need("the downtime reported", partial(_reported, "downtime_ms"))
TOTAL = Need("the total time reported", partial(_reported, "total_ms"))


def _written(attempt: Attempt) -> str:
    rates = attempt.dirty_rates or ()
    told = any(rate.when == "before" and rate.written_mib_s is not None for rate in rates)
    return "" if told else "the guest did not report what it wrote"


WRITTEN = Need("the guest's count", _written)
PLACED = on_every_hop(
    "events on the axis",
    lambda hop: "" if hop.placed else "not all of its events have a time on the common clock",
)


def _explained(attempt: Attempt) -> str:
    explained = {gap.direction for gap in attempt.explained or ()}
    ways = [way for way in DIRECTIONS if way not in explained and longest_gap(attempt.gaps, way)]
    if attempt.explained is None:
        return "; ".join(("no gaps to explain", *unseen_reasons(attempt)))
    if ways:
        reason = f"nothing recorded explains the longest gap of {', '.join(ways)}"
        return "; ".join((reason, *unseen_reasons(attempt)))
    return ""


EXPLANATION = Need("an explanation of each way", _explained)


def _announcements(hop: MoveDetails) -> str:
    """An announcement that was heard, with its error; without one the check itself says why."""
    heard = hop.first_announce_ms is not None
    if heard and hop.announce_error_ms is None:
        return "when the first announcement was observed is not known"
    return "" if heard else "no announcement was observed, or none was looked for"


ANNOUNCEMENTS = on_every_hop("announcements of each hop", _announcements)


def _set_rate(attempt: Attempt) -> str:
    """A rate of the workload that a measurement of a second can show."""
    workload = attempt.case.workload
    if not workload.dirty_mib_s or not workload.dirty_mib:
        return "the workload sets no rate: dirty_mib or dirty_mib_s is 0"
    if workload.dirty_mib_s * DIRTY_RATE_S > workload.dirty_mib:
        return (
            f"at {workload.dirty_mib_s:g} MiB/s the {workload.dirty_mib} MiB are written over "
            f"within the {DIRTY_RATE_S} s of measuring, and a page counts once: a larger dirty_mib "
            "shows it"
        )
    return ""


SET_RATE = Need("a rate to write at", _set_rate)


def _measured_rate(attempt: Attempt) -> str:
    before = [rate for rate in attempt.dirty_rates or () if rate.when == "before"]
    if any(rate.mib_s is not None for rate in before):
        return ""
    reasons = [f"{rate.method}: {rate.reason}" for rate in before]
    return "; ".join(reasons) or "nothing was measured"


MEASURED_RATE = Need("a measured rate", _measured_rate)


# --- devices and rings --------------------------------------------------------------------------

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
        return "no virtqueue was read"
    unread = [ring for ring in hop.rings if ring.unread]
    if not unread:
        return ""
    reasons = dict.fromkeys(
        f"queue {ring.queue}: {why}" for ring in unread for why in ring.unchecked
    )
    number, read = len(hop.rings), len(hop.rings) - len(unread)
    return f"rings read: {read} of {number}; {listed(tuple(reasons))}"


HANDOFF = on_every_hop("each network device's state on both sides", _handoff, "devices")
QUEUES = on_every_hop("every virtqueue", _rings, "rings")
