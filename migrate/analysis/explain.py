"""Where an outage went: a gap, or the guest's stop, as spans in order that cover it.

A span ends with something that was recorded: QEMU's events and trace points, the backend's log, the
fabric's first announcement, the stamp of the next packet that was sent. Where nothing that was
recorded can have kept packets from being served, the span is *unexplained*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from migrate.analysis.hop_events import HopEvents
from migrate.formats.log_events import CHECKPOINT, LOADED, READY, SAVED
from migrate.model import DeviceHandoff, Event, Gap, GapExplanation, Span
from migrate.model.recording import Arrivals, Column

_OVS_NS = 100_000_000
"""Another thread of OVS logs that a queue is enabled, maybe when packets pass already: until it is
logged, or they pass, the queue is not known to be enabled."""
_NEAR_NS = 30_000_000
"""The probe polls its devices' state a few times in a tenth of a second: it reports this late."""
_MOST_DEVICES = 2000
"""Rows of devices; the largest guests have some hundreds."""
MORE_DEVICES = "more devices"
_FEW = 3
"""Fewer packets before a gap do not give the sender's interval."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What ended at a point of the axis."""

    at_ns: int
    what: str
    host: str = ""
    error_ns: int = 0
    explained: bool = True


# --- the guest's stop, stage by stage -----------------------------------------------------------

Stage = tuple[str, str, dict[str, str], str]
"""An event's name, side and data, and what ended with it."""

_STATUS = "MIGRATION"
_SENT: tuple[Stage, ...] = (
    (CHECKPOINT, "source", {"checkpoint": "src-iterable-saved"}, "the rest of memory is sent"),
    (CHECKPOINT, "source", {"checkpoint": "src-non-iterable-saved"}, "devices are saved"),
)
_ARRIVED: tuple[Stage, ...] = (
    (LOADED, "target", {"type": "non-iterable"}, "the rest of memory arrives and is loaded"),
    (CHECKPOINT, "target", {"checkpoint": "dst-precopy-loadvm-completed"}, "devices are loaded"),
)
"""By trace points. Source: QEMU migration/savevm.c, migration.c."""
_TAKEN_IN = "memory and devices are loaded"
"""Of a target that has no trace points: until it says that it is completed."""
_RUNS = "libvirt lets the guest run"
_SUSPENDED = "memory is sent, and the guest is suspended"
_ALL_SENT = "memory is sent and loaded"
"""Of a source that has none: until the target, which has, begins to load devices."""


def stop_stages(hop: HopEvents) -> tuple[Span, ...] | None:
    """From STOP to RESUME; None if one of the two is not on record."""
    stop, resume = hop.switchover
    if stop is None or resume is None:
        return None
    marks = _stage_marks(hop, stop, resume)
    return tuple(_cover(stop.at_ns, resume.at_ns, marks, stop.off_ns))


def _known_stages(hop: HopEvents, stop: Event, until_ns: int) -> list[Mark]:
    """Stages of the stop that are on record, from STOP on."""
    hosts = {"source": hop.source, "target": hop.target}
    marks = _switchover_marks(hop, stop)
    for name, side, data, what in _stages(hop):
        event = hop.first(name, hosts[side], stop.at_ns, **data)
        if event is not None and event.at_ns <= until_ns:
            at_ns = event.at_ns - _load_ns(event)
            host = "" if what == _ALL_SENT else hosts[side]
            marks.append(Mark(at_ns, what, host, event.off_ns))
    return marks


def _stage_marks(hop: HopEvents, stop: Event, resume: Event) -> list[Mark]:
    marks = _known_stages(hop, stop, resume.at_ns)
    if not marks:
        return [Mark(resume.at_ns, "stopped; no stages are on record", "", resume.off_ns)]
    loaded = any(mark.what in (_ARRIVED[1][3], _TAKEN_IN) for mark in marks)
    last = _RUNS if loaded else f"{_TAKEN_IN}, and {_RUNS}"
    last = last if resume.host == hop.target else "the source goes on"
    return [*marks, Mark(resume.at_ns, last, resume.host, resume.off_ns)]


def _stages(hop: HopEvents) -> tuple[Stage, ...]:
    """By trace points, and for an end that has none by what QEMU tells of its status anyway."""
    sent, arrived = hop.traced(hop.source), hop.traced(hop.target)
    loaded, completed = _ARRIVED
    if not arrived:
        completed = (_STATUS, "target", {"status": "completed"}, _TAKEN_IN)
        return (*(_SENT if sent else ()), completed)
    if not sent:
        return ((*loaded[:3], _ALL_SENT), completed)
    return (*_SENT, loaded, completed)


def _switchover_marks(hop: HopEvents, stop: Event) -> list[Mark]:
    """How long QEMU waits for libvirt's word to switch over (pause-before-switchover)."""
    waits = hop.first(_STATUS, hop.source, stop.at_ns, status="pre-switchover")
    if waits is None:
        return []
    more = hop.first("MIGRATION_PASS", hop.source, stop.at_ns)
    suspended = more is not None and more.at_ns < waits.at_ns
    what = _SUSPENDED if suspended else "the source prepares to switch over"
    marks = [Mark(waits.at_ns, what, hop.source, waits.off_ns)]
    if (goes_on := hop.first(_STATUS, hop.source, waits.at_ns, status="device")) is not None:
        what = "libvirt lets the switchover go on"
        marks.append(Mark(goes_on.at_ns, what, hop.source, goes_on.off_ns))
    return marks


def _load_ns(event: Event) -> int:
    """How long a device's load took: the first one ends the span before it where it *began*."""
    return int(event.data.get("downtime", 0)) * 1000 if event.name == LOADED else 0


def device_times(hop: HopEvents) -> tuple[DeviceHandoff, ...] | None:
    """What each device took to save and to load; None without trace points of either end."""
    stop, resume = hop.switchover
    if stop is None or resume is None:
        return None
    times: dict[str, dict[str, float]] = {}
    for name, host, key in ((SAVED, hop.source, "save_ms"), (LOADED, hop.target, "load_ms")):
        for event in hop.events:
            if (event.name, event.host) != (name, host):
                continue
            if not stop.at_ns <= event.at_ns <= resume.at_ns + event.off_ns:
                continue
            device = _device_name(event)
            if device not in times and len(times) >= _MOST_DEVICES:
                device = MORE_DEVICES
            row = times.setdefault(device, {})
            row[key] = row.get(key, 0.0) + int(event.data["downtime"]) / 1000
    if not times:
        return None
    return tuple(DeviceHandoff(device=device, **row) for device, row in times.items())


def _device_name(event: Event) -> str:
    section = str(event.data["idstr"])
    if event.data["type"] == "iterable":
        return f"{section} (the rest)"
    return section_name(section, int(event.data.get("instance_id", 0)))


def section_name(name: str, instance: int) -> str:
    """A device's section in the stream by name, with its number where several share the name."""
    return f"{name}#{instance}" if instance else name


# --- a gap --------------------------------------------------------------------------------------


def explain_gap(gap: Gap, hop: HopEvents, log: Arrivals, grain_ns: int) -> GapExplanation:
    """The spans of ``gap``.

    ``log``: the arrivals of its direction, both stamps on the axis; ``grain_ns``: what the meter
    can't resolve, its floor: so much before the stop, and after the last thing that kept
    packets from being served, is the meter's own.
    """
    end_ns = gap.begin_ns + gap.length_ns
    marks = _marks(gap, hop, log, grain_ns)
    spans = tuple(_cover(gap.begin_ns, end_ns, marks, gap.place_off_ns))
    return GapExplanation(
        direction=gap.direction, begin_ns=gap.begin_ns, length_ns=gap.length_ns, spans=spans
    )


def _marks(gap: Gap, hop: HopEvents, log: Arrivals, grain_ns: int) -> Iterator[Mark]:
    end_ns = gap.begin_ns + gap.length_ns
    stop, resume = hop.switchover
    if stop is None or stop.at_ns > end_ns or (resume and resume.at_ns < gap.begin_ns):
        since_ns = gap.begin_ns
        for mark in _lower_device_marks(hop, since_ns, end_ns):
            yield mark
            since_ns = mark.at_ns
        if since_ns < end_ns:
            short = since_ns > gap.begin_ns and end_ns - since_ns <= grain_ns
            what = "within the meter's floor" if short else "the guest runs, and is not served"
            yield Mark(end_ns, what, explained=short)
        return
    yield from _until_stop(gap, hop, stop, grain_ns)
    if resume is None and gap.open_ended:
        yield Mark(end_ns, "stopped, and never resumed", stop.host)
        return
    if resume is None:  # it was served again: when it ran again is not known
        yield from _known_stages(hop, stop, end_ns)
        yield Mark(end_ns, "served again, and its RESUME is not on record", explained=False)
        return
    yield from _stage_marks(hop, stop, resume)
    yield from _after_resume(gap, hop, log, max(resume.at_ns, gap.begin_ns), grain_ns)


def _until_stop(gap: Gap, hop: HopEvents, stop: Event, grain_ns: int) -> Iterator[Mark]:
    """The guest still ran: what lay in its queues at the stop went with it."""
    out = next((event for event in hop.events if event.name == "detached"), None)
    if out is not None and out.at_ns <= stop.at_ns:
        yield Mark(out.at_ns, "the interface is taken out", hop.source, out.off_ns)
        what = "the guest runs without its interface"
        yield Mark(stop.at_ns, what, hop.source, stop.off_ns)
        return
    begin = _begins_to_stop(hop, stop)
    near = begin.at_ns - gap.begin_ns <= grain_ns + begin.off_ns + gap.place_off_ns
    what = "the last packet before the stop" if near else "the guest runs, and is not served"
    yield Mark(begin.at_ns, what, hop.source, begin.off_ns, explained=near)
    yield Mark(stop.at_ns, "the guest is stopped, and its backends", hop.source, stop.off_ns)


def _begins_to_stop(hop: HopEvents, stop: Event) -> Event:
    """QEMU emits STOP when processors and backends stand still; this event is where it begins."""
    begun = [
        event
        for event in hop.events
        if (event.name, event.host) == (CHECKPOINT, hop.source)
        and event.data.get("checkpoint") == "src-downtime-start"
        and event.at_ns <= stop.at_ns
    ]
    return begun[-1] if begun else stop


def _after_resume(
    gap: Gap, hop: HopEvents, log: Arrivals, since_ns: int, grain_ns: int
) -> Iterator[Mark]:
    """The guest runs again: what still keeps its packets from being served."""
    end_ns = gap.begin_ns + gap.length_ns
    plugged = next((event for event in hop.events if event.name == "attached"), None)
    if plugged is not None and since_ns < plugged.at_ns <= end_ns + plugged.off_ns:
        what = "the target's interface is plugged in"
        yield Mark(plugged.at_ns, what, hop.target, plugged.off_ns)
        since_ns = plugged.at_ns
    ready = hop.first(READY, hop.target, since_ns)
    if ready is not None and ready.at_ns < end_ns:
        yield Mark(ready.at_ns, "the backend's port comes up", hop.target, ready.off_ns)
        since_ns = ready.at_ns
    enabled = hop.queue_enabled(gap.direction, since_ns, end_ns + _OVS_NS)
    if ready is not None and enabled is not None:
        what = "the backend enables the guest's queue"
        yield Mark(enabled.at_ns, what, hop.target, enabled.off_ns)
        since_ns = enabled.at_ns
    yield from _tail(gap, hop, log, since_ns, grain_ns)


def _tail(gap: Gap, hop: HopEvents, log: Arrivals, since_ns: int, grain_ns: int) -> Iterator[Mark]:
    end_ns = gap.begin_ns + gap.length_ns
    for mark in _lower_device_marks(hop, since_ns, end_ns):
        yield mark
        since_ns = mark.at_ns
    if since_ns >= end_ns:
        return
    further = _guest_sends if gap.direction == "egress" else _fabric_learns
    for mark in further(hop, log, since_ns, end_ns):
        yield replace(mark, error_ns=max(mark.error_ns, gap.error_ns))  # of the stamps
        since_ns = max(since_ns, mark.at_ns)
    short = end_ns - since_ns <= grain_ns
    what = "within the meter's floor" if short else "served again, and nothing tells why not before"
    yield Mark(end_ns, what, explained=short)


_LOWER = {
    "lower-gone": "the guest's device is taken out",
    "lower-appeared": "a device is plugged in, and the guest finds it",
    "lower-up": "its link comes up",
    "carried-by": "the guest takes the other device into use",
}
"""What the probe reports of the devices below the guest's interface, and what ended with it."""


def _lower_device_marks(hop: HopEvents, since_ns: int, end_ns: int) -> list[Mark]:
    """The last event of each kind.

    One that is reported after the end, when packets passed, ends the last span where something of
    the device was seen to change before: alone it is no evidence that it kept packets from passing.
    """
    last: dict[str, Mark] = {}
    for event in hop.events:
        late_ns = end_ns + _NEAR_NS + event.off_ns
        if event.name in _LOWER and since_ns < event.at_ns <= late_ns:
            what = _LOWER[event.name]
            last[event.name] = Mark(event.at_ns, what, "guest", event.off_ns)
    marks = sorted(last.values(), key=lambda mark: mark.at_ns)
    return marks if marks and marks[0].at_ns <= end_ns + marks[0].error_ns else []


def _guest_sends(hop: HopEvents, log: Arrivals, since_ns: int, end_ns: int) -> Iterator[Mark]:
    """If nothing was lost since, the stamp of the next packet is when the guest sent it."""
    asked = [e for e in hop.events if e.name == "arp" and e.data.get("mac") == hop.mac]
    first_asked = next((e for e in asked if since_ns <= e.at_ns < end_ns), None)
    if first_asked is not None:
        yield Mark(first_asked.at_ns, "the guest asks for its peer's address", hop.target)
        since_ns = first_asked.at_ns
    before, after = log.sent_ns < since_ns, log.sent_ns >= since_ns
    if not after.any() or np.count_nonzero(before) < _FEW:
        return
    first = int(np.flatnonzero(after)[np.argmin(log.sent_ns[after])])
    last = int(np.flatnonzero(before)[np.argmax(log.sent_ns[before])])
    lost = int(log.seq[first]) - int(log.seq[last]) - 1
    if lost <= _sent_before_the_stop(hop, log.sent_ns[before]):
        at_ns = min(int(log.sent_ns[first]), end_ns)
        _, resume = hop.switchover
        began = resume is not None and int(log.sent_ns[last]) >= resume.at_ns
        what = "has sent, and sends nothing more yet" if began else "has not come to send yet"
        yield Mark(at_ns, f"the guest runs, and {what}", hop.target)
        if (arrived := int(log.received_ns[first])) < end_ns:
            yield Mark(arrived, "its first packet is under way")


def _sent_before_the_stop(hop: HopEvents, sent_ns: Column) -> int:
    """How many packets may have been sent after the last one that arrived, and before the stop."""
    stop, _ = hop.switchover
    if stop is None:
        return 0
    return max(0, (stop.at_ns - int(sent_ns.max())) // _interval_ns(sent_ns))


def _fabric_learns(hop: HopEvents, log: Arrivals, since_ns: int, end_ns: int) -> Iterator[Mark]:
    """Frames go to where the guest was until the fabric sees it; later ones wait for the guest.

    Those that were lost after that did not wait: nothing on record tells where they went.
    """
    begin_ns = since_ns
    if (heard_ns := hop.first_heard_ns(since_ns)) is not None and heard_ns < end_ns:
        yield Mark(heard_ns, "the fabric still sends to the source")
        begin_ns = heard_ns
    if _all_arrived(log, begin_ns, end_ns):
        yield Mark(end_ns, "packets wait, and the guest takes them late", hop.target)


def _all_arrived(log: Arrivals, begin_ns: int, end_ns: int) -> bool:
    """Whether what was sent between the two arrived, by the numbers of those before and after."""
    before, rows = log.sent_ns <= begin_ns, (log.sent_ns > begin_ns) & (log.sent_ns < end_ns)
    if not rows.any() or not before.any():
        return False
    seq = np.unique(log.seq[rows])
    later = log.seq[log.sent_ns >= end_ns]
    last = int(later.min()) - 1 if len(later) else int(seq[-1])
    lost = int(seq[0]) - int(log.seq[before].max()) - 1
    elapsed_ns = begin_ns - int(log.sent_ns[before].max())
    by_then = elapsed_ns // _interval_ns(log.sent_ns) + _FEW
    return lost <= by_then and last - int(seq[0]) + 1 == len(seq)


def _interval_ns(sent_ns: Column) -> int:
    """The sender's usual interval, by the packets that arrived."""
    return max(1, int(np.median(np.diff(np.sort(sent_ns))))) if len(sent_ns) > 1 else 1


# --- common -------------------------------------------------------------------------------------


def _cover(begin_ns: int, end_ns: int, marks: Iterable[Mark], error_ns: int) -> Iterator[Span]:
    """Spans from mark to mark, cut to ``begin_ns`` and ``end_ns``; nothing is left uncovered.

    ``error_ns``: of both ends.
    """
    cut = [Mark(begin_ns, "", error_ns=error_ns)]
    for mark in sorted(marks, key=lambda mark: mark.at_ns):
        if cut[-1].at_ns < mark.at_ns and cut[-1].at_ns < end_ns:
            at_end = mark.at_ns >= end_ns
            mark_error_ns = max(mark.error_ns, error_ns) if at_end else mark.error_ns
            at_ns = min(mark.at_ns, end_ns)
            cut.append(Mark(at_ns, mark.what, mark.host, mark_error_ns, mark.explained))
    if cut[-1].at_ns < end_ns:
        cut.append(Mark(end_ns, "nothing is on record", "", error_ns, explained=False))
    for before, mark in pairwise(cut):
        yield Span(
            what=mark.what,
            begin_ns=before.at_ns,
            end_ns=mark.at_ns,
            error_ns=max(before.error_ns, mark.error_ns),
            host=mark.host,
            explained=mark.explained,
        )
