"""Where an outage went: a gap as spans in order that cover it.

A span ends with something that was recorded: a stage of the stop, QEMU's events, the backend's log,
the fabric's first announcement, the stamp of the next packet that was sent. Where nothing that was
recorded can have kept packets from being served, the span is *unexplained*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from migrate.analysis.hop_events import HopEvents
from migrate.analysis.stop_stages import Mark, cover, known_stages, stage_marks
from migrate.formats.log_events import CHECKPOINT, READY
from migrate.model import Event, Gap, GapExplanation
from migrate.model.recording import Arrivals, Column

_OVS_NS = 100_000_000
"""Another thread of OVS logs that a queue is enabled, maybe when packets pass already: until it is
logged, or they pass, the queue is not known to be enabled."""
_NEAR_NS = 30_000_000
"""The probe polls its devices' state a few times in a tenth of a second: it reports this late."""
_FEW = 3
"""Fewer packets before a gap do not give the sender's interval."""


def explain_gap(gap: Gap, hop: HopEvents, log: Arrivals, grain_ns: int) -> GapExplanation:
    """The spans of ``gap``.

    ``log``: the arrivals of its direction, both stamps on the axis; ``grain_ns``: what the meter
    can't resolve, its floor: so much before the stop, and after the last thing that kept
    packets from being served, is the meter's own.
    """
    end_ns = gap.begin_ns + gap.length_ns
    marks = _marks(gap, hop, log, grain_ns)
    spans = tuple(cover(gap.begin_ns, end_ns, marks, gap.place_off_ns))
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
            what = "below what the meter can see" if short else "guest running but not served"
            yield Mark(end_ns, what, explained=short)
        return
    yield from _until_stop(gap, hop, stop, grain_ns)
    if resume is None and gap.open_ended:
        yield Mark(end_ns, "guest stopped, never resumed", stop.host)
        return
    if resume is None:  # it was served again: when it ran again is not known
        yield from known_stages(hop, stop, end_ns)
        yield Mark(end_ns, "served again, RESUME not recorded", explained=False)
        return
    yield from stage_marks(hop, stop, resume)
    yield from _after_resume(gap, hop, log, max(resume.at_ns, gap.begin_ns), grain_ns)


def _until_stop(gap: Gap, hop: HopEvents, stop: Event, grain_ns: int) -> Iterator[Mark]:
    """The guest still ran: what lay in its queues at the stop went with it."""
    out = next((event for event in hop.events if event.name == "detached"), None)
    if out is not None and out.at_ns <= stop.at_ns:
        yield Mark(out.at_ns, "detaching the interface", hop.source, out.off_ns)
        what = "guest running without its interface"
        yield Mark(stop.at_ns, what, hop.source, stop.off_ns)
        return
    begin = _begins_to_stop(hop, stop)
    near = begin.at_ns - gap.begin_ns <= grain_ns + begin.off_ns + gap.place_off_ns
    what = "last packet before the stop" if near else "guest running but not served"
    yield Mark(begin.at_ns, what, hop.source, begin.off_ns, explained=near)
    yield Mark(stop.at_ns, "stopping the guest and its backends", hop.source, stop.off_ns)


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
        what = "attaching the target's interface"
        yield Mark(plugged.at_ns, what, hop.target, plugged.off_ns)
        since_ns = plugged.at_ns
    host = hop.runs_on
    ready = hop.first(READY, host, since_ns)
    if ready is not None and ready.at_ns < end_ns:
        yield Mark(ready.at_ns, "backend's port coming up", host, ready.off_ns)
        since_ns = ready.at_ns
    enabled = hop.queue_enabled(gap.direction, since_ns, end_ns + _OVS_NS)
    if ready is not None and enabled is not None:
        what = "backend enabling the guest's queue"
        yield Mark(enabled.at_ns, what, host, enabled.off_ns)
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
    for mark in further(hop, log, since_ns, end_ns, grain_ns):
        yield replace(mark, error_ns=max(mark.error_ns, gap.error_ns))  # of the stamps
        since_ns = max(since_ns, mark.at_ns)
    short = end_ns - since_ns <= grain_ns
    what = "below what the meter can see" if short else "not served, cause unknown"
    yield Mark(end_ns, what, explained=short)


_LOWER = {
    "lower-gone": "unplugging the guest's device",
    "lower-appeared": "plugging a device in, guest detecting it",
    "lower-up": "device's link coming up",
    "carried-by": "guest switching to the other device",
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


_LATE = "packets queued, arriving late"
_SILENT_AGAIN = "guest running, nothing more sent yet"


def _guest_sends(
    hop: HopEvents, log: Arrivals, since_ns: int, end_ns: int, grain_ns: int
) -> Iterator[Mark]:
    """If nothing was lost since, the stamp of the next packet is when the guest sent it."""
    asked = [e for e in hop.events if e.name == "arp" and e.data.get("mac") == hop.mac]
    first_asked = next((e for e in asked if since_ns <= e.at_ns < end_ns), None)
    if first_asked is not None:
        yield Mark(first_asked.at_ns, "guest resolving its peer's address (ARP)", hop.runs_on)
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
        what = _SILENT_AGAIN if began else "guest running again, nothing sent yet"
        yield Mark(at_ns, what, hop.runs_on)
        if (arrived := min(int(log.received_ns[first]), end_ns)) > at_ns:
            yield Mark(arrived, "first packet in flight")
            yield from _sends_late(hop, _run(log, since_ns, end_ns), arrived, grain_ns)


def _sends_late(
    hop: HopEvents, run: Sequence[tuple[int, int]], since_ns: int, grain_ns: int
) -> Iterator[Mark]:
    """Packets of which none is missing, sent and received: they waited, or the guest sent none."""
    late_ns = since_ns
    for sent_ns, received_ns in run:
        if sent_ns > late_ns + grain_ns:
            yield Mark(late_ns, _LATE)
            yield Mark(sent_ns, _SILENT_AGAIN, hop.runs_on)
        late_ns = max(late_ns, received_ns)
    yield Mark(late_ns, _LATE)


def _run(log: Arrivals, since_ns: int, end_ns: int) -> list[tuple[int, int]]:
    """Stamps of the packets that were sent after ``since_ns``, up to the first that is missing, and
    at most to the first that was sent after ``end_ns``: all are cut to that.

    None of them if more were lost after them: what is lost does not wait.
    """
    later = log.sent_ns[log.sent_ns > end_ns]
    last_ns = int(later.min()) if len(later) else end_ns
    rows = np.flatnonzero((log.sent_ns > since_ns) & (log.sent_ns <= last_ns))
    seq, first = np.unique(log.seq[rows], return_index=True)
    if not len(seq):
        return []
    breaks = np.flatnonzero(np.diff(seq) != 1)
    whole = int(breaks[0]) + 1 if len(breaks) else len(seq)
    lost = int(seq[-1] - seq[0]) + 1 - len(seq)
    if whole <= lost:
        return []
    run = rows[first[:whole]]
    stamps = ((int(log.sent_ns[i]), int(log.received_ns[i])) for i in run)
    return [(min(sent, end_ns), min(received, end_ns)) for sent, received in stamps]


def _sent_before_the_stop(hop: HopEvents, sent_ns: Column) -> int:
    """How many packets may have been sent after the last one that arrived, and before the stop."""
    stop, _ = hop.switchover
    if stop is None:
        return 0
    return max(0, (stop.at_ns - int(sent_ns.max())) // _interval_ns(sent_ns))


def _fabric_learns(
    hop: HopEvents, log: Arrivals, since_ns: int, end_ns: int, _grain_ns: int
) -> Iterator[Mark]:
    """Frames go to where the guest was until the fabric sees it; later ones wait for the guest.

    Those that were lost after that did not wait: nothing on record tells where they went.
    """
    begin_ns = since_ns
    heard_ns = hop.first_heard_ns(since_ns) if hop.runs_on == hop.target else None
    if heard_ns is not None and heard_ns < end_ns:
        yield Mark(heard_ns, "fabric still forwarding to the source")
        begin_ns = heard_ns
    if _all_arrived(log, begin_ns, end_ns):
        yield Mark(end_ns, "packets queued, guest receiving them late", hop.runs_on)


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
