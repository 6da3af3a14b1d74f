"""What went on inside of an attempt's moves, from all that was seen of them.

The events tell the stop by stages and what each device took (:mod:`migrate.explain`); what was
looked at on both ends tells whether a device arrived as it left (:mod:`migrate.handoff`), and
whether its rings were sound (:mod:`migrate.virtqueue`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import get_args

from migrate.explain import Told, devices, explained, stages
from migrate.handoff import Queue, compare, fields, queues, told_by_backend
from migrate.model import (
    Attempt,
    DeviceHandoff,
    Direction,
    Explained,
    Gap,
    Inside,
    RingAudit,
    Sample,
    Span,
)
from migrate.observe.inside import NOT_SEEN, VIRTIO_NET
from migrate.stage import Hop, Seen
from migrate.timeline import Arrivals
from migrate.virtqueue import audit

BLIND_NS = 250_000_000
"""QEMU is asked for its progress every 20 ms: so long without an answer, and it was blind."""
NO_TRACES = "no stages of the stop: this QEMU has no trace points vmstate_downtime_* (since 8.2)"


def inside_of(seen: Seen, memory_mib: int) -> tuple[Inside, ...]:
    """Hop by hop."""
    return tuple(
        _of_hop(number, hop, told, memory_mib)
        for number, (hop, told) in enumerate(zip(seen.hops, _told(seen), strict=True), 1)
    )


def explained_of(
    seen: Seen, attempt: Attempt, arrivals: Mapping[str, Arrivals]
) -> tuple[Explained, ...] | None:
    """The longest gap of each direction; None without gaps."""
    if attempt.gaps is None or attempt.floor is None:
        return None
    return tuple(_explained(seen, attempt, arrivals))


def _explained(
    seen: Seen, attempt: Attempt, arrivals: Mapping[str, Arrivals]
) -> Iterator[Explained]:
    assert attempt.gaps is not None
    assert attempt.floor is not None
    floors = {"egress": attempt.floor.egress_ms, "ingress": attempt.floor.ingress_ms}
    ways: tuple[Direction, ...] = get_args(Direction)
    for way in ways:
        gaps = [gap for gap in attempt.gaps if gap.direction == way]
        gap = max(gaps, key=lambda one: one.length_ns, default=None)
        if gap is not None and way in arrivals:
            grain_ns = max(int(floors[way] * 1e6), 2000 * attempt.case.workload.interval_us)
            heard_ns, mac = arrivals["egress"].received_ns, attempt.case.interface.mac
            told = replace(_of_gap(seen, gap), egress_ns=heard_ns, mac=mac)
            yield explained(gap, told, arrivals[way], grain_ns)


def _told(seen: Seen) -> list[Told]:
    """Each hop owns the axis until the next one begins."""
    ends = [hop.begin_ns for hop in seen.hops[1:]]
    found = []
    for hop, end_ns in zip(seen.hops, [*ends, None], strict=True):
        mine = [
            event
            for event in sorted(seen.events, key=lambda event: event.at_ns)
            if event.at_ns >= hop.begin_ns and (end_ns is None or event.at_ns < end_ns)
        ]
        found.append(Told(mine, hop.source, hop.target))
    return found


def _of_gap(seen: Seen, gap: Gap) -> Told:
    """The hop that a gap ends in."""
    told = _told(seen)
    end_ns = gap.begin_ns + gap.length_ns
    begun = [one for hop, one in zip(seen.hops, told, strict=True) if hop.begin_ns <= end_ns]
    return begun[-1] if begun else told[0]


def _of_hop(number: int, hop: Hop, told: Told, memory_mib: int) -> Inside:
    resume = told.resume()
    heard = [event for event in told.events if event.name == "announce"]
    moved = resume is not None and resume.host == hop.target
    after = [event for event in heard if resume and event.at_ns >= told_stop(told)]
    first_ms = (after[0].at_ns - resume.at_ns) / 1e6 if after and resume else None
    spans, took = stages(told), devices(told)
    compared = tuple(_compared(hop, told))
    unseen = list(hop.looked.unseen) if hop.looked else [NOT_SEEN]
    if resume is not None and took is None:
        unseen.append(NO_TRACES)
    return Inside(
        hop=number,
        stop=spans,
        rings=_rings(hop, memory_mib),
        devices=_joined(took or (), compared) if took or compared else None,
        announced=len([e for e in after if resume and e.at_ns >= resume.at_ns]) if moved else None,
        first_announce_ms=first_ms if moved else None,
        blind=tuple(_blind(hop.looked.samples)) if hop.looked else (),
        unseen=tuple(unseen),
    )


def _compared(hop: Hop, told: Told) -> Iterator[DeviceHandoff]:
    """Network devices by QEMU's path, of which something was had on both ends."""
    looked = hop.looked
    if looked is None or not looked.source or looked.target is None:
        return
    given = told_by_backend(told.events, hop.target) if looked.vhost else {}
    for path, source in looked.source.items():
        before = fields(source)
        if looked.vhost and "ring_packed" in before.get("features", ""):
            # QEMU keeps no used index of a packed ring that a backend works: it tells 0.
            before = {name: one for name, one in before.items() if not name.endswith(": used")}
        after = {**fields(looked.target.get(path, {})), **given}
        if before.keys() & after.keys():
            differences = compare(before, after)
            yield DeviceHandoff(device=path, compared=True, differences=differences)


def _rings(hop: Hop, memory_mib: int) -> tuple[RingAudit, ...] | None:
    """As they lay in memory when the source had stopped; None if that was not read."""
    looked = hop.looked
    if looked is None or not looked.source or not looked.memory:
        return None
    found = queues(looked.source, looked.memory, memory_mib, vhost=bool(looked.vhost))
    return tuple(_audited(queue) for queue in found)


def _audited(queue: Queue) -> RingAudit:
    found = audit(queue.ring)
    return RingAudit(
        device=queue.device,
        queue=queue.number,
        kind=queue.ring.kind,
        size=queue.ring.size,
        broken=tuple(found.broken),
        unchecked=(*queue.unchecked, *found.unchecked),
        facts=found.facts,
    )


def _joined(
    took: tuple[DeviceHandoff, ...], compared: tuple[DeviceHandoff, ...]
) -> tuple[DeviceHandoff, ...]:
    """QEMU names a device by its section in the stream, and by its path: both in their order."""
    left = list(compared)
    found = []
    for one in took:
        if one.device.endswith(f"/{VIRTIO_NET}") and left:
            more = left.pop(0)
            told = {"compared": more.compared, "differences": more.differences}
            found.append(one.model_copy(update=told))
        else:
            found.append(one)
    return (*found, *left)


def told_stop(told: Told) -> int:
    """When the guest was stopped; the end of time if it never was."""
    stop = told.stop()
    return stop.at_ns if stop else 2**63 - 1


def _blind(samples: list[Sample]) -> Iterator[Span]:
    for before, after in pairwise(samples):
        if after.at_ns - before.at_ns > BLIND_NS:
            yield Span(
                what="QEMU did not answer: its progress was not seen",
                begin_ns=before.at_ns,
                end_ns=after.at_ns,
                host=before.host,
                explained=False,
            )
