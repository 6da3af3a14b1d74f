"""What went on inside of an attempt's moves, from all that was seen of them.

The events tell the stop by stages and what each device took (:mod:`migrate.explain`); what was
looked at on both ends tells whether a device arrived as it left (:mod:`migrate.handoff`), and
whether its rings were sound (:mod:`migrate.virtqueue`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from migrate.explain import Told, devices, explained, stages
from migrate.handoff import Queue, compare, fields, queues, told_by_backend, untold
from migrate.model import (
    DIRECTIONS,
    Attempt,
    DeviceHandoff,
    Explained,
    Gap,
    Inside,
    RingAudit,
    Sample,
    Span,
)
from migrate.observe.inside import NOT_SEEN
from migrate.observe.questions import VIRTIO_NET
from migrate.outage import longest
from migrate.stage import Hop, Seen
from migrate.timeline import Arrivals
from migrate.virtqueue import audit

BLIND_NS = 250_000_000
"""QEMU is asked for its progress every 20 ms: so long without an answer, and it was blind."""
NO_TRACES = "no stages of the stop: this QEMU has no trace points vmstate_downtime_* (since 8.2)"


def told_of(seen: Seen, mac: str) -> tuple[Told, ...]:
    """What was told of each hop; ``mac``: the guest's."""
    hops = seen.by_hop()
    return tuple(Told(events, hop.source, hop.target, hop.begin_ns, mac) for hop, events, _ in hops)


def inside_of(seen: Seen, told: Sequence[Told], memory_mib: int) -> tuple[Inside, ...]:
    """Hop by hop."""
    return tuple(
        _of_hop(number, hop, one, memory_mib)
        for number, (hop, one) in enumerate(zip(seen.hops, told, strict=True), 1)
    )


def explained_of(
    told: Sequence[Told], attempt: Attempt, arrivals: Mapping[str, Arrivals]
) -> tuple[Explained, ...] | None:
    """The longest gap of each direction; None without gaps."""
    if attempt.gaps is None or attempt.floor is None:
        return None
    return tuple(_explained(told, attempt, arrivals))


def _explained(
    told: Sequence[Told], attempt: Attempt, arrivals: Mapping[str, Arrivals]
) -> Iterator[Explained]:
    for way in DIRECTIONS:
        gap, seen_from_ms = longest(attempt.gaps, way), attempt.seen_from_ms(way)
        if gap is not None and seen_from_ms is not None and way in arrivals:
            heard = replace(_of_gap(told, gap), egress_ns=arrivals["egress"].received_ns)
            yield explained(gap, heard, arrivals[way], round(seen_from_ms * 1e6))


def _of_gap(told: Sequence[Told], gap: Gap) -> Told:
    """The hop that a gap ends in."""
    end_ns = gap.begin_ns + gap.length_ns
    begun = [one for one in told if one.begin_ns <= end_ns]
    return begun[-1] if begun else told[0]


def _of_hop(number: int, hop: Hop, told: Told, memory_mib: int) -> Inside:
    _, resume = told.switchover
    spans, took = stages(told), devices(told)
    compared = tuple(_compared(hop, told))
    unseen = list(hop.looked.unseen) if hop.looked else [NOT_SEEN]
    if resume is not None and took is None:
        unseen.append(NO_TRACES)
    announced, first_ms = _announced(told)
    return Inside(
        hop=number,
        stop=spans,
        rings=_rings(hop, memory_mib),
        devices=_joined(took or (), compared) if took or compared else None,
        announced=announced,
        first_announce_ms=first_ms,
        blind=tuple(_blind(hop.looked.samples)) if hop.looked else (),
        unseen=tuple(unseen),
    )


def _announced(told: Told) -> tuple[int | None, float | None]:
    """How often after the resume on the target, and how long after it first: since the stop."""
    stop, resume = told.switchover
    if stop is None or resume is None or resume.host != told.target:
        return None, None
    heard = [e.at_ns for e in told.events if e.name == "announce" and e.at_ns >= stop.at_ns]
    first_ms = (heard[0] - resume.at_ns) / 1e6 if heard else None
    return sum(at_ns >= resume.at_ns for at_ns in heard), first_ms


def _compared(hop: Hop, told: Told) -> Iterator[DeviceHandoff]:
    """Network devices by QEMU's path, of which something was had on both ends."""
    looked = hop.looked
    if looked is None or not looked.source or looked.target is None:
        return
    given = told_by_backend(told.events, hop.target) if looked.vhost else {}
    for path, source in looked.source.items():
        before = fields(source, vhost=bool(looked.vhost))
        after = {**fields(looked.target.get(path, {})), **given}
        if before.keys() & after.keys():
            yield DeviceHandoff(
                device=path,
                compared=True,
                differences=compare(before, after),
                untold=untold(before, after),
            )


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
            told = {"compared", "differences", "untold"}
            found.append(one.model_copy(update={name: getattr(more, name) for name in told}))
        else:
            found.append(one)
    return (*found, *left)


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
