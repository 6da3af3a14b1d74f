"""A lab and its hosts. Nothing above this layer knows what they are made of."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from migrate.clock import Deadline, Offset
from migrate.drivers.libvirt import Hypervisor
from migrate.drivers.shell import Completed
from migrate.lab.resources import Resources
from migrate.lab.small_files import SmallFiles
from migrate.model import HostFacts


class Power(Protocol):
    """The switch of a host that can be switched off: a machine of a nested lab, or a rack's BMC."""

    def kill(self) -> None:
        """Off at once, as if its cable were pulled."""

    def hang(self) -> None:
        """The host stands still: nothing of it answers, and no connection is closed."""

    def resume(self) -> None:
        """A host that hung goes on."""

    def replace(self) -> None:
        """A host that is off comes back, with nothing on it that it had."""


class Runs(Protocol):
    """Where programs can be run."""

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a program on the host."""


class Programs(Runs, Protocol):
    """Where programs can be run, and talked to while they run."""

    def piped(
        self, argv: Sequence[str], deadline: Deadline
    ) -> AbstractContextManager[socket.socket]:
        """A program's input and output as one socket while the block runs."""


class Host(Programs, Protocol):
    """What the verbs may ask of a host."""

    @property
    def name(self) -> str:
        """Unique in its lab."""

    @property
    def root(self) -> str:
        """What it runs from, e.g. ``debian-13``."""

    @property
    def migration_address(self) -> str:
        """Where it listens for guests that come in."""

    @property
    def resources(self) -> Resources:
        """What backends may be made of."""

    @property
    def power(self) -> Power | None:
        """Its switch; None where nobody but its users may switch it off."""

    @property
    def libvirt_target(self) -> str:
        """The URI by which the *other* host's libvirt reaches this one."""

    def file(self, path: str) -> Path | None:
        """The host's file as the controller sees it; None where it sees none."""

    def read(self, path: str, deadline: Deadline) -> bytes:
        """What is in a file of the host."""

    def small_files(self, deadline: Deadline) -> AbstractContextManager[SmallFiles]:
        """Files of the host's ``/proc`` and ``/sys``, cheaply read while the block runs."""

    def dial(self, path: str, deadline: Deadline) -> AbstractContextManager[socket.socket]:
        """A connection to a unix socket of the host while the block runs."""

    def connect(self) -> Hypervisor:
        """A connection to the host's libvirt; the caller closes it."""

    def wall_clock(self) -> Offset:
        """The host's wall clock, on the axis."""

    def start_libvirt(self, deadline: Deadline) -> None:
        """Start the host's libvirtd."""


class Place(Protocol):
    """Namespaces on this machine."""

    @property
    def init_pid(self) -> int:
        """Their process 1, as this machine numbers it."""

    def file(self, path: str) -> Path:
        """A file in there, as this machine sees it."""


class Lab(Protocol):
    """What the verbs may ask of a lab."""

    name: str
    kind: str
    """What its hosts are made of, as lab files call it: ``local``, ``nested``, ``rack``."""
    cpu_model: str | None
    """The processor of guests under KVM; None: as the host's."""
    patience: float
    """How many times longer than real ones its hosts may take to start a guest, and to answer."""
    peer_address: str
    peer_interface: str
    peer_is_here: bool
    """Whether the peer runs on the controller's machine, and so has its clock."""
    guest_address: str
    prefix: int

    @property
    def hosts(self) -> Mapping[str, Host]:
        """By name, in the lab file's order."""

    @property
    def missing_hosts(self) -> tuple[HostFacts, ...]:
        """Hosts of the lab file that are not there today: their capability ``root`` says why."""

    @property
    def places(self) -> Mapping[str, Place]:
        """By host: the namespaces that it is, or that its machine runs in; none of a rack."""

    @property
    def machine_pid_file(self) -> str | None:
        """In a place: of the program that is the host's machine; None: a host is no such thing."""

    @property
    def surroundings(self) -> Mapping[str, Programs]:
        """What else of ours is on the guests' network: the ``peer``, and the ``fabric`` where this
        machine has it."""

    @property
    def scenario_defaults(self) -> Mapping[str, Any]:
        """Values for what scenarios leave open, as tables of a scenario."""

    @property
    def shared(self) -> Path:
        """A folder that every host sees under the same path as the controller."""

    @property
    def leases(self) -> Path:
        """Where the leases of its hosts are."""

    @property
    def coordinator(self) -> str | None:
        """``HOST:PORT`` of what keeps leases across controllers; None: this one has them alone."""

    def isolate_pair(self, source: str, target: str) -> Lab:
        """The lab as a guest on these two hosts sees it: with a peer of their own.

        Other pairs may be in use at the same time, by guests of the same MAC and address.
        """

    def peer(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """The probe as the guest's peer on the fabric, with pipes; ended with the block."""

    def replace_dead_hosts(self) -> tuple[str, ...]:
        """Replace the hosts that are off; their names."""

    def interact(self, host: str, argv: Sequence[str], *, terminal: bool) -> int:
        """Run a program on a host interactively; its exit status.

        ``terminal``: at a pseudo-terminal there, relayed to ours; else with our streams.
        """

    def summary(self) -> Iterable[str]:
        """What it is made of, for people: a line each."""

    def as_json(self) -> str:
        """What it is made of, for programs."""

    def close(self) -> None:
        """Let go of what this process holds of it, e.g. connections; the lab goes on as it is."""
