"""A recording of several moves, move by move: each one's findings, and nothing of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from migrate.analysis.findings import analyse, phases_by_hop
from migrate.analysis.hops import FOREVER_NS, hop_events
from migrate.analysis.move_details import explanations, move_details
from migrate.analysis.traffic import arrivals_on_axis, guest_clock
from migrate.model import Case, Gap, HopFindings, Stall, Unmeasured
from migrate.model.recording import HopRecording, Recording

_Stretch = TypeVar("_Stretch", Gap, Stall, Unmeasured)


def findings_by_hop(
    recording: Recording, cases: Sequence[Case], ends_ns: Sequence[int]
) -> tuple[HopFindings, ...]:
    """Of each move by its own case; what was seen counts until its point of ``ends_ns``, on the
    axis. Raises MeasurementError for a log that can't be true."""
    clock = guest_clock(recording.traffic)
    arrivals = arrivals_on_axis(recording.traffic, clock)
    details = move_details(
        recording, hop_events(recording, cases[0].interface.mac), cases[0], arrivals, clock
    )
    moved = phases_by_hop(recording)
    borders_ns = [*(hop.begin_ns for hop in recording.hops[1:]), FOREVER_NS]

    def findings(number: int) -> HopFindings:
        hop, case, end_ns = recording.hops[number], cases[number], ends_ns[number]
        events = [event for event in recording.events if event.at_ns < borders_ns[number]]
        alone = recording.model_copy(update={"hops": (hop,), "events": tuple(events)})
        whole = analyse(alone, case, clock)
        gaps = _within(whole.gaps, hop, end_ns)
        of_hop = hop_events(alone, case.interface.mac)
        return HopFindings(
            reported=whole.reported,
            phases=moved[number],
            gaps=gaps,
            unmeasured=_within(whole.unmeasured, hop, end_ns) or (),
            stalls=_within(whole.stalls, hop, end_ns),
            explained=explanations(of_hop, gaps, whole.floor, case, arrivals),
            details=details[number],
            floor=whole.floor,
            no_floor=whole.no_floor,
            void=hop.void,
        )

    return tuple(map(findings, range(len(recording.hops))))


def _within(
    stretches: Sequence[_Stretch] | None, hop: HopRecording, end_ns: int
) -> tuple[_Stretch, ...] | None:
    """Those that overlap the move, or the time that was listened after it."""
    if stretches is None:
        return None
    return tuple(
        one
        for one in stretches
        if one.begin_ns < end_ns and one.begin_ns + one.length_ns > hop.begin_ns
    )
