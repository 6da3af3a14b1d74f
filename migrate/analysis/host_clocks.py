"""Wall clocks of hosts, read several times: where a stamp lies, and whether a clock was set.

A wall clock drifts, and whoever keeps it may set it. Drift is slow, and is interpolated; a clock
that was set in the middle of an attempt tells nothing of when things happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from migrate.clock import Offset
from migrate.model import ClockReading, Event

DRIFT_PPM = 200
"""A crystal is off by less than 100; NTP slews by up to 500 (adjtimex(2)), but rarely for long."""
PEER = "peer"
"""The endpoint that captures on the fabric: it stamps by its monotonic clock."""


def drift_ns(elapsed_ns: int) -> int:
    """How far a clock that nobody sets may have drifted after ``elapsed_ns``, in nanoseconds."""
    return abs(elapsed_ns) * DRIFT_PPM // 10**6


@dataclass(frozen=True, slots=True)
class ClockStep:
    """A clock that was set between two points of the axis; ``by_ns`` > 0: forwards."""

    host: str
    by_ns: int
    since_ns: int
    until_ns: int

    def describe(self, begin_ns: int) -> str:
        """The step in a sentence; times are from ``begin_ns`` on."""
        since_s, until_s = ((at_ns - begin_ns) / 1e9 for at_ns in (self.since_ns, self.until_ns))
        return (
            f"the clock of {self.host} stepped by {self.by_ns / 1e9:+.3g} s between {since_s:.1f} s"
            f" and {until_s:.1f} s of the attempt: when things happened there is not known"
        )


def readings_by_host(readings: Iterable[ClockReading]) -> dict[str, list[ClockReading]]:
    """Readings of each clock by its host, in order."""
    hosts: dict[str, list[ClockReading]] = {}
    for reading in sorted(readings, key=lambda reading: reading.at_ns):
        hosts.setdefault(reading.host, []).append(reading)
    return hosts


def clock_steps(readings: Iterable[ClockReading]) -> tuple[ClockStep, ...]:
    """Steps: where two readings differ by more than their errors and drift explain."""
    return tuple(
        # The offset leads from the clock to the axis: it shrinks when the clock is set forwards.
        ClockStep(after.host, before.offset_ns - after.offset_ns, before.at_ns, after.at_ns)
        for clock in readings_by_host(readings).values()
        for before, after in pairwise(clock)
        if abs(after.offset_ns - before.offset_ns)
        > before.error_ns + after.error_ns + drift_ns(after.at_ns - before.at_ns)
    )


def to_axis(stamp_ns: int, readings: Sequence[ClockReading]) -> tuple[int, int]:
    """A stamp on the axis, and its error; ``readings``: at least one of its clock, in order.

    Between two readings the offset goes evenly from one to the other. It may not have: it can be
    off by what lies between the two, or by the drift since the nearer one, whichever is less.
    Before the first and after the last one drift is error.
    """
    for before, after in pairwise(readings):
        begin_ns, end_ns = (reading.at_ns - reading.offset_ns for reading in (before, after))
        if begin_ns <= stamp_ns <= end_ns:
            moved_ns, span_ns = after.offset_ns - before.offset_ns, max(1, end_ns - begin_ns)
            offset_ns = before.offset_ns + moved_ns * (stamp_ns - begin_ns) // span_ns
            near_ns = min(stamp_ns - begin_ns, end_ns - stamp_ns)
            doubt_ns = min(abs(moved_ns), drift_ns(near_ns))
            return stamp_ns + offset_ns, max(before.error_ns, after.error_ns) + doubt_ns
    nearest = min(readings, key=lambda reading: abs(reading.at_ns - reading.offset_ns - stamp_ns))
    far_ns = stamp_ns + nearest.offset_ns - nearest.at_ns
    return stamp_ns + nearest.offset_ns, nearest.error_ns + drift_ns(far_ns)


def realign(
    events: Iterable[Event], first: Mapping[str, Offset], readings: Sequence[ClockReading]
) -> Iterator[Event]:
    """The events placed anew by all readings; those of a clock that stepped get no error: unknown.

    ``first``: by host, the offset by which stamps of wall clocks were laid on the axis at first.
    """
    stepped = {step.host for step in clock_steps(readings)}
    known = readings_by_host(readings)
    for event in events:
        clock = clock_of(event)
        if clock in stepped:
            yield event.model_copy(update={"error_ns": None})
        elif clock in first and clock in known and event.error_ns is not None:
            by = first[clock]
            at_ns, error_ns = to_axis(event.at_ns - by.offset_ns, known[clock])
            grain_ns = event.error_ns - by.error_ns
            yield event.model_copy(update={"at_ns": at_ns, "error_ns": error_ns + grain_ns})
        else:
            yield event


def clock_of(event: Event) -> str | None:
    """The host whose clock stamped an event; None: the controller's, or the guest's."""
    if event.source == "fabric":
        return PEER
    host, dot, kind = event.clock.rpartition(".")
    return host if dot and kind == "wall" else None
