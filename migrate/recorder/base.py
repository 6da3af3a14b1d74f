"""What an attempt is made of while it goes on, and how those who listen meanwhile are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from migrate.backends.xml import Rewrite
from migrate.clock import Deadline
from migrate.drivers.libvirt import Domain
from migrate.lab.api import Host, Lab
from migrate.model import Case, Nic, Observers, PhaseName, Sample
from migrate.model.recording import HopRecording, StartRecording
from migrate.recorder.clocks import Clocks
from migrate.recorder.events import Listener
from migrate.recorder.machines import Machines
from migrate.recorder.phase_tracker import PhaseTracker
from migrate.recorder.traffic import Traffic


@dataclass(frozen=True, slots=True)
class AttemptEnv:
    """Where an attempt happens, and who wants to hear of it."""

    lab: Lab
    accelerator: str = "qemu"
    run: str = ""
    """The name of the run, which the guest's metadata tells."""
    check: Callable[[], None] = lambda: None
    """Whether the hosts are still ours to use, asked before each step."""
    on_sample: Callable[[Sample], None] = lambda _sample: None
    on_phase: Callable[[PhaseName], None] = lambda _phase: None
    observers: Mapping[str, Observers] = field(default_factory=dict)
    """By host: what its QEMU may be asked; of one that is not there, nothing experimental."""
    notes: tuple[str, ...] = ()
    """What is to be said of the attempt from before it began."""

    def deadline(self, seconds: float) -> Deadline:
        """So far off as a real host would need, times the lab's patience."""
        return Deadline.after(seconds * self.lab.patience)


@dataclass(slots=True)
class Rig:
    """A guest that runs under load on one of two hosts; ``domain`` is where it runs now."""

    case: Case
    env: AttemptEnv
    pair: tuple[Host, Host]
    domain: Domain
    traffic: Traffic
    listener: Listener
    clocks: Clocks
    rewrites: Mapping[str, tuple[Rewrite, ...]]
    """By the host that the guest is moved from."""
    hotplug: Mapping[str, str | None]
    """By host: the device, as XML, that the guest is plugged in there."""
    start: StartRecording
    machines: Machines

    def direction(self) -> tuple[Host, Host]:
        """Source and target of the next move."""
        first, second = self.pair
        return (first, second) if self.domain.host == first.name else (second, first)


@dataclass(frozen=True, slots=True)
class Hop:
    """One move, as its observers know it."""

    case: Case
    env: AttemptEnv
    source: Host
    target: Host
    listener: Listener
    phases: PhaseTracker
    guest: str = ""
    """Its UUID."""
    nic: Nic | None = None
    """Its interface as it saw that before the first move."""


class Observation(Protocol):
    """What an observer has seen of a hop; whole when the observer's block has ended."""

    def add_to(self, recording: HopRecording) -> HopRecording:
        """The hop's recording with what was seen."""


class Observer(Protocol):
    """Listens while a guest moves, from the begin of the block to its end."""

    def __call__(self, hop: Hop, /) -> AbstractContextManager[Observation]:
        """Raises LabError if what it is there for can't be had."""
