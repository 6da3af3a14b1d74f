"""What went on inside of an attempt's moves, from all that was seen of them.

The events tell the stop by stages and what each device took (:mod:`migrate.analysis.explain`); what
was looked at on both ends tells whether a device arrived as it left
(:mod:`migrate.analysis.device_state`), and whether its rings were sound
(:mod:`migrate.formats.virtqueue`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from migrate.analysis.announcements import count_by_kind
from migrate.analysis.convergence import PRECOPY, assess_convergence
from migrate.analysis.device_state import (
    DeviceQueue,
    comparable_fields,
    compare,
    device_queues,
    one_sided,
    queues_by_backend_log,
)
from migrate.analysis.explain import HopEvents, device_times, explain_gap, section_name, stop_stages
from migrate.analysis.outage import longest_gap
from migrate.formats.virtqueue_audit import audit
from migrate.model import (
    DIRECTIONS,
    Attempt,
    Case,
    Convergence,
    DeviceHandoff,
    Event,
    Explained,
    Gap,
    Inside,
    MonitorGap,
    RingAudit,
)
from migrate.model.recording import Arrivals
from migrate.recorder.progress import to_sample
from migrate.recorder.qemu_state import QemuRecording
from migrate.recorder.qmp_queries import VIRTIO_NET
from migrate.recorder.seen import FOREVER_NS, Hop, Seen
from migrate.recorder.traffic import TrafficLog

BLIND_NS = 250_000_000
"""QEMU is asked for its progress every 20 ms: so long without an answer, and it was blind."""
SWITCHED = ("pre-switchover", "device", "completed")
"""QEMU's statuses of a source that has begun to switch over (qapi/migration.json)."""
NO_TRACES = "no stages of the stop: this QEMU has no trace points vmstate_downtime_* (since 8.2)"


def hop_events(seen: Seen, mac: str) -> tuple[HopEvents, ...]:
    """What was told of each hop; ``mac``: the guest's."""
    hops = seen.by_hop()
    return tuple(
        HopEvents(
            events,
            *(hop.source, hop.target, hop.begin_ns, mac),
            unplaced=(*hop.deaf, *seen.stepped(hop.source, hop.target)),
        )
        for hop, events, _ in hops
    )


def inside_of(
    seen: Seen, told: Sequence[HopEvents], case: Case, arrivals: Mapping[str, Arrivals]
) -> tuple[Inside, ...]:
    """Hop by hop; ``arrivals`` by direction, on the axis."""
    end_ns = FOREVER_NS if seen.heard_until_ns is None else seen.heard_until_ns
    borders = [border_ns for _, _, border_ns in seen.by_hop(end_ns)]
    hops = zip(seen.hops, told, borders, strict=True)
    return tuple(
        Inside(
            hop=number,
            **_of_hop(hop, one, case),
            **_announced(one, hop.looked, border_ns),
            **_first_packets(one, seen.taken, arrivals, border_ns),
        )
        for number, (hop, one, border_ns) in enumerate(hops, 1)
    )


def explained_of(
    told: Sequence[HopEvents], attempt: Attempt, arrivals: Mapping[str, Arrivals]
) -> tuple[Explained, ...] | None:
    """The longest gap of each direction; None without gaps, or if events are missing."""
    if attempt.gaps is None or attempt.floor is None or any(one.unplaced for one in told):
        return None
    return tuple(_explained(told, attempt, arrivals))


def _explained(
    told: Sequence[HopEvents], attempt: Attempt, arrivals: Mapping[str, Arrivals]
) -> Iterator[Explained]:
    for way in DIRECTIONS:
        gap, seen_from_ms = longest_gap(attempt.gaps, way), attempt.seen_from_ms(way)
        if gap is not None and seen_from_ms is not None and way in arrivals:
            heard = replace(_of_gap(told, gap), egress_ns=arrivals["egress"].received_ns)
            yield explain_gap(gap, heard, arrivals[way], round(seen_from_ms * 1e6))


def _of_gap(told: Sequence[HopEvents], gap: Gap) -> HopEvents:
    """The hop that a gap ends in."""
    end_ns = gap.begin_ns + gap.length_ns
    begun = [one for one in told if one.begin_ns <= end_ns]
    return begun[-1] if begun else told[0]


def _of_hop(hop: Hop, told: HopEvents, case: Case) -> dict[str, Any]:
    """What both QEMUs told: fields of :class:`Inside`, as of the next two."""
    _, resume = told.switchover
    spans, took = stop_stages(told), device_times(told)
    compared = tuple(_compared(hop, told))
    unseen = [*hop.looked.unseen, *told.unplaced]
    if resume is not None and took is None:
        unseen.append(NO_TRACES)
    if resume is not None and hop.tail is not None and hop.tail.unseen:
        unseen.append(hop.tail.unseen)
    blocktime = hop.looked.blocktime
    return {
        "stop": spans,
        "rings": _rings(hop, case.guest.memory_mib),
        "devices": _sized(hop, _joined(took or (), compared)) if took or compared else None,
        "convergence": _convergence(hop, told, case),
        "postcopy_blocktime_ms": blocktime.every_ms if blocktime else None,
        "postcopy_cpus_blocktime_ms": blocktime.each_ms if blocktime else (),
        "placed": not told.unplaced,
        "blind": tuple(_blind(hop.looked, told)),
        "unseen": tuple(unseen),
    }


def _convergence(hop: Hop, told: HopEvents, case: Case) -> Convergence | None:
    """Of a move that was a pre-copy to its end."""
    if case.policy.method not in PRECOPY or not hop.looked.samples:
        return None
    if told.unplaced:
        return None
    ours = [event for event in told.events if event.host == told.source]
    account = [to_sample(told.source, e.data) for e in ours if e.name == "job-completed"]
    found = assess_convergence([*hop.looked.samples, *account], case.policy, case.workload)
    statuses = {event.data.get("status") for event in ours if event.name == "MIGRATION"}
    passes = [event for event in ours if event.name == "MIGRATION_PASS"]
    if found is None or "postcopy-active" in statuses:
        return None
    stop, _ = told.switchover
    limit_ns = told.begin_ns + round(case.policy.timeout_s * 1e9)
    suspends = case.policy.on_timeout == "suspend"
    return found.model_copy(
        update={
            "switched_over": not statuses.isdisjoint(SWITCHED),
            # QEMU tells of those after the last look, too.
            "syncs": int(passes[-1].data["pass"]) if passes else found.syncs,
            "stopped_s": (stop.at_ns - passes[0].at_ns) / 1e9 if stop and passes else None,
            "suspended": suspends and stop is not None and stop.at_ns >= limit_ns,
        }
    )


def _announced(told: HopEvents, looked: QemuRecording, border_ns: int) -> dict[str, Any]:
    """What was asked for, and what was heard after the resume on the target; since the stop."""
    found: dict[str, Any] = {}
    if (rounds := looked.rounds) is not None:
        found = {"announce_rounds_asked": rounds.rounds, "announce_last_due_ms": rounds.last_due_ms}
    stop, resume = told.switchover
    if stop is None or resume is None or resume.host != told.target or told.unplaced:
        return found
    heard = [e for e in told.events if e.name == "announce" and e.at_ns >= stop.at_ns]
    after = [e for e in heard if e.at_ns >= resume.at_ns]
    listened_ms = None if border_ns == FOREVER_NS else (border_ns - resume.at_ns) / 1e6
    return {
        **found,
        "announced": len(after),
        "first_announce_ms": (heard[0].at_ns - resume.at_ns) / 1e6 if heard else None,
        "announced_by": count_by_kind(after),
        "listened_ms": listened_ms,
    }


def _first_packets(
    told: HopEvents, taken: TrafficLog | None, arrivals: Mapping[str, Arrivals], border_ns: int
) -> dict[str, Any]:
    """Each way the first packet that arrived after the guest ran again, wherever it did."""
    _, resume = told.switchover
    if resume is None or taken is None or told.unplaced:
        return {}
    found: dict[str, Any] = {}
    silent = []
    for way in DIRECTIONS:
        if way not in arrivals:
            continue
        received_ns = arrivals[way].received_ns
        after = received_ns[(received_ns >= resume.at_ns) & (received_ns < border_ns)]
        if not len(after):
            silent.append(way)
            continue
        at_ns = int(after.min())
        error_ns = resume.off_ns + taken.arrival_error_ns(way, at_ns)
        found[f"first_{way}_ms"] = (at_ns - resume.at_ns) / 1e6
        found[f"first_{way}_error_ms"] = error_ns / 1e6
    return {**found, "silent": tuple(silent)}


def _compared(hop: Hop, told: HopEvents) -> Iterator[DeviceHandoff]:
    """Network devices by QEMU's path, of which something was had on both ends."""
    looked = hop.looked
    if not looked.source or looked.target is None:
        return
    given = queues_by_backend_log(told.events, hop.target) if looked.vhost else {}
    for path, source in looked.source.items():
        before = comparable_fields(source, vhost=bool(looked.vhost))
        after = {**comparable_fields(looked.target.get(path, {})), **given}
        if before.keys() & after.keys():
            yield DeviceHandoff(
                device=path,
                compared=True,
                differences=compare(before, after),
                untold=one_sided(before, after),
            )


def _rings(hop: Hop, memory_mib: int) -> tuple[RingAudit, ...] | None:
    """As they lay in memory when the source had stopped; None if that was not read."""
    looked = hop.looked
    if not looked.source or not looked.memory:
        return None
    found = device_queues(looked.source, looked.memory, memory_mib, vhost=bool(looked.vhost))
    return tuple(_audited(queue) for queue in found)


def _audited(queue: DeviceQueue) -> RingAudit:
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


def _sized(hop: Hop, devices: tuple[DeviceHandoff, ...]) -> tuple[DeviceHandoff, ...]:
    """With the bytes of each device's section, headers and all."""
    sizes = {section_name(one.name, one.instance): one.bytes for one in hop.sections}
    return tuple(one.model_copy(update={"size_bytes": sizes.get(one.device)}) for one in devices)


def _blind(looked: QemuRecording, told: HopEvents) -> Iterator[MonitorGap]:
    stop, resume = told.switchover
    for before_ns, after_ns in pairwise(looked.answered_ns):
        if after_ns - before_ns > BLIND_NS:
            yield MonitorGap(
                what="QEMU did not answer: its progress was not seen",
                begin_ns=before_ns,
                end_ns=after_ns,
                host=told.source,
                explained=False,
                missed=round((after_ns - before_ns) / (looked.interval_s * 1e9)) - 1,
                stop=None if stop is None else before_ns <= stop.at_ns <= after_ns,
                stopped_ms=_stopped_ms(stop, resume, before_ns, after_ns),
            )


def _stopped_ms(
    stop: Event | None, resume: Event | None, begin_ns: int, end_ns: int
) -> float | None:
    """How much of the guest's stop lies between two points."""
    if stop is None or resume is None:
        return None
    return max(0, min(end_ns, resume.at_ns) - max(begin_ns, stop.at_ns)) / 1e6
