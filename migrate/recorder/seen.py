"""What is gathered while an attempt goes on, hop by hop: for whoever judges it afterwards."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from migrate.analysis.host_clocks import PEER, clock_steps
from migrate.formats.vmstate_stream import Section, StreamAccount, StreamEnd
from migrate.migration.move import MoveResult
from migrate.model import ClockReading, DirtyRate, Event, Nic, Sample
from migrate.recorder.qemu_state import QemuRecording
from migrate.recorder.stream_capture import StreamCapture
from migrate.recorder.traffic import TrafficLog

FOREVER_NS = 2**63 - 1
"""No point of the axis is later."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One move of an attempt, and the stretch of the axis that belongs to it."""

    source: str
    target: str
    moved: MoveResult
    begin_ns: int
    end_ns: int
    looked: QemuRecording
    """Inside of both QEMUs."""
    stream: StreamAccount | None = None
    """Of a guest that was saved and restored; else None."""
    tail: StreamCapture | None = None
    """Of the stream of one that was moved live."""
    deaf: tuple[str, ...] = ()
    """Whose events were not all heard, and why."""

    @property
    def account(self) -> StreamAccount | StreamEnd | None:
        """What the stream told of itself."""
        return self.stream or (self.tail.ending if self.tail else None)

    @property
    def sections(self) -> tuple[Section, ...]:
        """What each device put into the stream, as far as that is known."""
        return self.account.sections if self.account else ()


@dataclass(slots=True)
class Seen:
    """What is gathered while an attempt goes on."""

    begin_ns: int
    floor: tuple[int, int]
    start_ms: float
    nic: Nic
    hops: list[Hop] = field(default_factory=list)
    taken: TrafficLog | None = None
    heard_until_ns: int | None = None
    """The fabric was listened to for announcements until then."""
    events: tuple[Event, ...] = ()
    samples: list[Sample] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    backend_failed: tuple[str, ...] | None = None
    dirty_rates: list[DirtyRate] = field(default_factory=list)
    """Empty if the case does not ask for them."""
    clocks: Sequence[ClockReading] = ()

    def stepped(self, *hosts: str) -> tuple[str, ...]:
        """Why it is not known when things happened on ``hosts``, or on the fabric; mostly empty."""
        asked = {*hosts, PEER}
        return tuple(
            step.describe(self.begin_ns) for step in clock_steps(self.clocks) if step.host in asked
        )

    def by_hop(self, end_ns: int = FOREVER_NS) -> Iterator[tuple[Hop, list[Event], int]]:
        """Each hop with its events in order: it owns the axis until the next one begins.

        Those whose place on the axis is not known are left out.
        """
        known = (event for event in self.events if event.error_ns is not None)
        ordered = sorted(known, key=lambda event: event.at_ns)
        borders = [*(hop.begin_ns for hop in self.hops[1:]), end_ns]
        for hop, border in zip(self.hops, borders, strict=True):
            yield hop, [e for e in ordered if hop.begin_ns <= e.at_ns < border], border


def stream_file(hops: Sequence[Hop]) -> dict[str, str]:
    """``stream.json``: what the streams told of themselves; nothing if none of them did."""
    told = [
        {"hop": number, **dataclasses.asdict(hop.account)}
        for number, hop in enumerate(hops, 1)
        if hop.account is not None
    ]
    return {"stream.json": json.dumps(told, indent=1) + "\n"} if told else {}
