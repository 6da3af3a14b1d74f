"""Arrivals of numbered packets, and the guest's clock laid on to the axis of time.

Shapes: every column is a one-dimensional ``int64`` array of nanoseconds or sequence numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from migrate.errors import MeasurementError
from migrate.evidence import Column, Evidence, Flags
from migrate.model import Event, Phase, PhaseName, Stall


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """What one receiver logged, one row a packet in the order of arrival; equal lengths.

    ``sent_ns`` is the sender's stamp by the sender's clock, ``received_ns`` the receiver's kernel
    stamp by the receiver's clock; which clocks these are is said by whoever holds the log.
    Raises ValueError if the columns differ in length or are not one-dimensional.
    """

    seq: Column
    sent_ns: Column
    received_ns: Column

    def __post_init__(self) -> None:
        for name in ("seq", "sent_ns", "received_ns"):
            column = np.asarray(getattr(self, name), dtype=np.int64)
            if column.ndim != 1:
                raise ValueError(f"{name} must have one dimension, not {column.ndim}")
            object.__setattr__(self, name, column)
        if not len(self.seq) == len(self.sent_ns) == len(self.received_ns):
            raise ValueError(
                f"columns differ in length: seq {len(self.seq)}, sent_ns {len(self.sent_ns)}, "
                f"received_ns {len(self.received_ns)}"
            )

    @classmethod
    def empty(cls) -> Arrivals:
        """Nothing arrived."""
        none = np.empty(0, dtype=np.int64)
        return cls(none, none, none)

    def __len__(self) -> int:
        return len(self.seq)

    def select(self, mask: Flags | Column) -> Arrivals:
        """The rows that ``mask`` picks: booleans, or indices in the order wanted."""
        return Arrivals(self.seq[mask], self.sent_ns[mask], self.received_ns[mask])


# --- the guest's clock --------------------------------------------------------------------------

UNKNOWN_DELAY_NS = 50_000_000
"""The error where nothing ever came back: a one-way delay can't be told from an offset."""


@dataclass(frozen=True, slots=True)
class Segment:
    """From ``begin_guest_ns`` on, ``axis = guest + offset_ns + slope * (guest - begin_guest_ns)``.

    ``error_ns`` is half of the corridor that the evidence left, about half the best round trip:
    how a round trip splits into its two ways can't be known and is assumed even.
    """

    begin_guest_ns: int
    offset_ns: int
    slope: float
    error_ns: int

    def offset_at(self, guest_ns: int) -> int:
        """The offset at a reading of the guest's clock."""
        return self.offset_ns + round(self.slope * (guest_ns - self.begin_guest_ns))


@dataclass(frozen=True, slots=True)
class GuestClock:
    """The guest's clock on the axis: constant but for drift, with a jump wherever it stood still.

    It is found from both streams; the bounds that they give (:mod:`migrate.evidence`) are hard, so
    a late packet never moves the clock.
    """

    segments: tuple[Segment, ...]

    @classmethod
    def fit(cls, egress: Arrivals, ingress: Arrivals) -> GuestClock:
        """Find the segments.

        ``egress.sent_ns`` and ``ingress.received_ns`` are readings of the guest's clock,
        ``egress.received_ns`` and ``ingress.sent_ns`` points on the axis. Errors are relative to
        the clock that gave these points. Raises MeasurementError if nothing arrived either way.
        """
        if not len(egress) and not len(ingress):
            raise MeasurementError(
                "lay the guest's clock on the axis",
                said="no packet arrived in either direction",
                remedy="see whether the guest's link was up when the streams were started",
            )
        evidence = Evidence.gather(
            (egress.sent_ns, egress.received_ns), (ingress.received_ns, ingress.sent_ns)
        )
        starts = evidence.starts()
        pieces = [evidence.part(a, b) for a, b in pairwise([*starts, len(evidence.guest_ns)])]
        return cls(_joined(_pinned(pieces), pieces))

    def to_axis(self, guest_ns: Column) -> Column:
        """Readings of the guest's clock, on the axis."""
        readings = np.asarray(guest_ns, dtype=np.int64)
        begins = np.array([segment.begin_guest_ns for segment in self.segments])
        offsets = np.array([segment.offset_ns for segment in self.segments])
        slopes = np.array([segment.slope for segment in self.segments])
        which = np.maximum(np.searchsorted(begins, readings, side="right") - 1, 0)
        drift = np.rint(slopes[which] * (readings - begins[which])).astype(np.int64)
        return np.asarray(readings + offsets[which] + drift, dtype=np.int64)

    def error_across(self, begin_ns: int, end_ns: int) -> int:
        """Of a difference between two points on the axis that were read off the guest's clock.

        Within one segment the error holds for the place; across a jump both errors add up.
        """
        first, last = self._at_axis(begin_ns), self._at_axis(end_ns)
        if first is last:
            return first.error_ns
        return first.error_ns + last.error_ns

    @property
    def error_ns(self) -> int:
        """The largest of all segments."""
        return max(segment.error_ns for segment in self.segments)

    def _at_axis(self, at_ns: int) -> Segment:
        found = self.segments[0]
        for segment in self.segments[1:]:
            if segment.begin_guest_ns + segment.offset_ns <= at_ns:
                found = segment
        return found


def _pinned(pieces: Sequence[Evidence]) -> tuple[Segment, ...]:
    """One segment a piece, in the middle of its corridor; the error is half of the width.

    A corridor that drift has narrowed counts as wide as a short look sees it. A one-sided piece
    borrows the nearest corridor's width, and all of it is its error.
    """
    drifts = [piece.drift() for piece in pieces]
    corridors = [piece.corridor(slope) for piece, (slope, _) in zip(pieces, drifts, strict=True)]
    widths = {
        index: max(abs(high - low), drifts[index][1])
        for index, (low, high) in enumerate(corridors)
        if np.isfinite(high - low)
    }
    segments = []
    for index, piece in enumerate(pieces):
        low, high = corridors[index]
        if index in widths:
            middle, error = (low + high) / 2, widths[index] / 2
        else:
            nearest = min(widths, key=lambda other: abs(other - index), default=None)
            width = 0.0 if nearest is None else widths[nearest]
            error = UNKNOWN_DELAY_NS if nearest is None else width
            middle = low + width / 2 if np.isfinite(low) else high - width / 2
        begin, offset = int(piece.guest_ns[0]), piece.base_ns + round(middle)
        segments.append(Segment(begin, offset, drifts[index][0], round(error)))
    return tuple(segments)


def _joined(segments: Sequence[Segment], pieces: Sequence[Evidence]) -> tuple[Segment, ...]:
    """Each begins where the evidence for the one before ends: the earliest that it can have."""
    joined = [segments[0]]
    for before, segment in zip(pieces, segments[1:], strict=False):
        begin = min(int(before.guest_ns[-1]) + 1, segment.begin_guest_ns)
        joined.append(replace(segment, begin_guest_ns=begin, offset_ns=segment.offset_at(begin)))
    return tuple(joined)


def stalls(clock: GuestClock, jumps: Iterable[tuple[int, int]] = ()) -> tuple[Stall, ...]:
    """What the guest lived through, in the order of the axis.

    Stood still: its clock lost time against the axis; where no packet was seen around the stop,
    ``begin_ns`` is the earliest that it can have been. Jumped: its tick came ``delta_ns`` after
    the tick before it, at ``guest_ns`` of its clock; ``jumps`` is the guest's list of these.
    """
    found = []
    for before, after in pairwise(clock.segments):
        at = after.begin_guest_ns
        lost = after.offset_at(at) - before.offset_at(at)
        if lost > 0:
            error = before.error_ns + after.error_ns
            begin = at + before.offset_at(at)
            found.append(Stall(kind="stood-still", begin_ns=begin, length_ns=lost, error_ns=error))
    for guest_ns, delta_ns in jumps:
        begin = int(clock.to_axis(np.array([guest_ns]))[0])
        error = clock.error_across(begin, begin)
        found.append(Stall(kind="jumped", begin_ns=begin, length_ns=delta_ns, error_ns=error))
    return tuple(sorted(found, key=lambda stall: stall.begin_ns))


# --- phases -------------------------------------------------------------------------------------


def label(phase: Phase) -> str:
    """A phase's name as people read it: ``precopy(2)``, ``stopped``."""
    return f"{phase.name}({phase.number})" if phase.number else phase.name


def phases(events: Iterable[Event], source: str, target: str, end_ns: int) -> tuple[Phase, ...]:
    """The phases of one move, by begin; of an attempt of several hops, ask hop by hop.

    Read from QEMU's own events (MIGRATION, MIGRATION_PASS, STOP, RESUME) and the fabric's
    ``announce``; the statuses are the source's.

    - ``setup``, ``pre-switchover``, ``device``, ``postcopy``: from their status to the next one;
      ``device`` at most to the resume.
    - ``precopy(n)``: from pass n to the next pass or the end of pre-copy; without passes one
      stretch with no number.
    - ``stopped``: from the source's STOP to the first RESUME on the target after it, else to the
      source's own. The phases between lie inside it; phases may overlap.
    - ``resumed``: from that RESUME to the first announcement, or to ``end_ns`` if there was none.
    - ``announce``: from the first announcement after the resume to the last.
    - ``settled``: after the last announcement and the last status; without a stop, from the status
      ``failed`` or ``cancelled`` to ``end_ns``.

    An event that is missing makes no phase rather than a wrong one.
    """
    ordered = sorted(events, key=lambda event: event.at_ns)
    qemu = [event for event in ordered if event.source == "qemu"]
    ours = [event for event in qemu if event.host == source]
    statuses = [event for event in ours if event.name == "MIGRATION"]
    end = Event(at_ns=end_ns, source="controller", host="", name="end")
    stop, resume = _switchover(qemu, source, target)
    announced = [
        event
        for event in ordered
        if resume and event.name == "announce" and event.at_ns >= resume.at_ns
    ]
    found = [*_by_status(statuses, resume), *_precopy(ours, statuses, stop)]
    if stop and resume:
        found.append(_phase("stopped", stop, resume))
    if resume:
        found.append(_phase("resumed", resume, announced[0] if announced else end))
    if announced:
        found.append(_phase("announce", announced[0], announced[-1]))
        last = max([announced[-1], *statuses], key=lambda event: event.at_ns)
        found.append(_phase("settled", last, end))
    elif not stop and statuses and _status(statuses[-1]) in ("failed", "cancelled"):
        found.append(_phase("settled", statuses[-1], end))
    return tuple(
        sorted(
            (phase for phase in found if phase.begin_ns <= phase.end_ns),
            key=lambda phase: phase.begin_ns,
        )
    )


_BY_STATUS: dict[str, PhaseName] = {
    "setup": "setup",
    "pre-switchover": "pre-switchover",
    "device": "device",
    "postcopy-active": "postcopy",
}


def _status(event: Event) -> str:
    return str(event.data.get("status", ""))


def _phase(name: PhaseName, begin: Event, end: Event, number: int = 0) -> Phase:
    error = max(begin.error_ns, end.error_ns)
    return Phase(name=name, number=number, begin_ns=begin.at_ns, end_ns=end.at_ns, error_ns=error)


def _switchover(
    qemu: Sequence[Event], source: str, target: str
) -> tuple[Event | None, Event | None]:
    """The source's last STOP before the guest ran again, and the RESUME that made it run."""
    stops = [event for event in qemu if event.host == source and event.name == "STOP"]
    resumes = [event for event in qemu if event.name == "RESUME"]
    if not stops:
        return None, None
    on_target = [e for e in resumes if e.host == target and e.at_ns >= stops[0].at_ns]
    if on_target:
        before = [event for event in stops if event.at_ns <= on_target[0].at_ns]
        return before[-1], on_target[0]
    again = [e for e in resumes if e.host == source and e.at_ns >= stops[-1].at_ns]
    return stops[-1], again[0] if again else None


def _by_status(statuses: Sequence[Event], resume: Event | None) -> list[Phase]:
    found = []
    for event, following in pairwise(statuses):
        name = _BY_STATUS.get(_status(event))
        if name is None:
            continue
        ends = [following]
        if name == "device" and resume and resume.at_ns >= event.at_ns:
            ends.append(resume)
        found.append(_phase(name, event, min(ends, key=lambda end: end.at_ns)))
    return found


def _precopy(ours: Sequence[Event], statuses: Sequence[Event], stop: Event | None) -> list[Phase]:
    """Pass 1 may be announced while still in setup: it begins with the status ``active``."""
    active = next((event for event in statuses if _status(event) == "active"), None)
    if active is None:
        return []
    enders = [event for event in statuses if event.at_ns > active.at_ns]
    if stop and stop.at_ns > active.at_ns:
        enders.append(stop)
    if not enders:
        return []
    last = min(enders, key=lambda event: event.at_ns)
    passes = [
        event
        for event in ours
        if event.name == "MIGRATION_PASS" and event.at_ns < last.at_ns and event.data.get("pass")
    ]
    if not passes:
        return [_phase("precopy", active, last)]
    found = []
    for event, following in pairwise([*passes, last]):
        begin = max(event, active, key=lambda candidate: candidate.at_ns)
        found.append(_phase("precopy", begin, following, int(event.data["pass"])))
    return found
