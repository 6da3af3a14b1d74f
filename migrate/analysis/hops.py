"""A recording hop by hop: which stretch of the axis is whose, and whether its clocks kept still."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.analysis.hop_events import HopEvents
from migrate.analysis.host_clocks import PEER, clock_steps
from migrate.model import Event
from migrate.model.recording import HopRecording, Recording

FOREVER_NS = 2**63 - 1
"""No point of the axis is later."""


def unknown_times(recording: Recording, *hosts: str) -> tuple[str, ...]:
    """Why it is not known when things happened on ``hosts``, or on the fabric; mostly empty."""
    wanted, begin_ns = {*hosts, PEER}, recording.start.begin_ns
    return tuple(
        step.describe(begin_ns) for step in clock_steps(recording.clocks) if step.host in wanted
    )


def by_hop(
    recording: Recording, end_ns: int = FOREVER_NS
) -> Iterator[tuple[HopRecording, list[Event], int]]:
    """Each hop, its events in order, and its end: it owns the axis until the next one begins.

    Events whose place on the axis is not known are left out.
    """
    placed = (event for event in recording.events if event.error_ns is not None)
    ordered = sorted(placed, key=lambda event: event.at_ns)
    borders = [*(hop.begin_ns for hop in recording.hops[1:]), end_ns]
    for hop, border_ns in zip(recording.hops, borders, strict=True):
        yield hop, [e for e in ordered if hop.begin_ns <= e.at_ns < border_ns], border_ns


def hop_events(recording: Recording, mac: str) -> tuple[HopEvents, ...]:
    """The events of each hop, and why some are missing; ``mac``: the guest's."""
    return tuple(
        HopEvents(
            events,
            *(hop.source, hop.target, hop.begin_ns, mac),
            unplaced=(*hop.missed_events, *unknown_times(recording, hop.source, hop.target)),
        )
        for hop, events, _ in by_hop(recording)
    )
