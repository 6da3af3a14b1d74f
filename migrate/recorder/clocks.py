"""Clocks of both hosts and of the peer, read before, during and after an attempt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from migrate.analysis.host_clocks import PEER
from migrate.clock import Offset, now_ns
from migrate.errors import LabError
from migrate.guest.probe import Probe
from migrate.lab.api import Host
from migrate.model import ClockReading
from migrate.model.recording import HopRecording

EVERY_S = 30.0
"""While a move goes on: one that is shorter has its readings before and after."""


def reading(host: str, offset: Offset) -> ClockReading:
    """What was measured just now."""
    at_ns, error_ns = now_ns(), offset.error_ns
    return ClockReading(host=host, at_ns=at_ns, offset_ns=offset.offset_ns, error_ns=error_ns)


@dataclass(slots=True)
class Clocks:
    """All readings so far; a clock that could not be read leaves a note in its place."""

    hosts: Sequence[Host]
    peer: Probe
    readings: list[ClockReading] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read(self) -> None:
        """Each clock once."""
        ways: list[tuple[str, Callable[[], Offset]]] = [
            *((host.name, host.wall_clock) for host in self.hosts),
            (PEER, lambda: self.peer.clock_offset(f"{PEER}.mono")),
        ]
        for name, measure in ways:
            try:
                self.readings.append(reading(name, measure()))
            except LabError as error:
                note = f"the clock of {name} was not read, it may have been set: {error}"
                self.notes.append(note)

    @contextmanager
    def observe(self, _hop: object, every_s: float = EVERY_S) -> Iterator[Clocks]:
        """Read them again and again while the block runs; nobody else may ask the peer then."""
        ended = threading.Event()

        def read_on() -> None:
            while not ended.wait(every_s):
                self.read()

        reader = threading.Thread(target=read_on, daemon=True)
        reader.start()
        try:
            yield self
        finally:
            ended.set()
            reader.join()

    def add_to(self, recording: HopRecording) -> HopRecording:
        """Nothing: readings are the attempt's, before, during and after all its moves."""
        return recording
