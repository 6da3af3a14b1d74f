"""The guest's stop, from STOP to RESUME, stage by stage; and what each device took.

A stage ends with something that was recorded: QEMU's trace points, or where an end has none its
statuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from migrate.analysis.hop_events import HopEvents
from migrate.formats.log_events import CHECKPOINT, LOADED, SAVED
from migrate.model import DeviceHandoff, Event, Span

_MOST_DEVICES = 2000
"""Rows of devices; the largest guests have some hundreds."""
MORE_DEVICES = "more devices"


@dataclass(frozen=True, slots=True)
class Mark:
    """What ended at a point of the axis."""

    at_ns: int
    what: str
    host: str = ""
    error_ns: int = 0
    explained: bool = True


def cover(begin_ns: int, end_ns: int, marks: Iterable[Mark], error_ns: int) -> Iterator[Span]:
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
        cut.append(Mark(end_ns, "nothing recorded", "", error_ns, explained=False))
    for before, mark in pairwise(cut):
        yield Span(
            what=mark.what,
            begin_ns=before.at_ns,
            end_ns=mark.at_ns,
            error_ns=max(before.error_ns, mark.error_ns),
            host=mark.host,
            explained=mark.explained,
        )


Stage = tuple[str, str, dict[str, str], str]
"""An event's name, side and data, and what ended with it."""

_STATUS = "MIGRATION"
_SENT: tuple[Stage, ...] = (
    (CHECKPOINT, "source", {"checkpoint": "src-iterable-saved"}, "sending the rest of memory"),
    (CHECKPOINT, "source", {"checkpoint": "src-non-iterable-saved"}, "saving device state"),
)
_ARRIVED: tuple[Stage, ...] = (
    (LOADED, "target", {"type": "non-iterable"}, "loading the rest of memory"),
    (CHECKPOINT, "target", {"checkpoint": "dst-precopy-loadvm-completed"}, "loading device state"),
)
"""By trace points. Source: QEMU migration/savevm.c, migration.c."""
_TAKEN_IN = "loading memory and device state"
"""Of a target that has no trace points: until it says that it is completed."""
_RUNS = "libvirt resuming the guest"
_SUSPENDED = "sending memory, guest suspended"
_ALL_SENT = "sending and loading memory"
"""Of a source that has none: until the target, which has, begins to load devices."""


def stop_stages(hop: HopEvents) -> tuple[Span, ...] | None:
    """From STOP to RESUME; None if one of the two is not on record."""
    stop, resume = hop.switchover
    if stop is None or resume is None:
        return None
    marks = stage_marks(hop, stop, resume)
    return tuple(cover(stop.at_ns, resume.at_ns, marks, stop.off_ns))


def known_stages(hop: HopEvents, stop: Event, until_ns: int) -> list[Mark]:
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


def stage_marks(hop: HopEvents, stop: Event, resume: Event) -> list[Mark]:
    marks = known_stages(hop, stop, resume.at_ns)
    if not marks:
        return [Mark(resume.at_ns, "guest stopped, no stages recorded", "", resume.off_ns)]
    loaded = any(mark.what in (_ARRIVED[1][3], _TAKEN_IN) for mark in marks)
    last = _RUNS if loaded else f"{_TAKEN_IN}, and {_RUNS}"
    last = last if resume.host == hop.target else "source resuming the guest"
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
    what = _SUSPENDED if suspended else "source preparing the switchover"
    marks = [Mark(waits.at_ns, what, hop.source, waits.off_ns)]
    if (goes_on := hop.first(_STATUS, hop.source, waits.at_ns, status="device")) is not None:
        what = "libvirt continuing the switchover"
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
