"""A host: where a domain runs. Nothing above this layer knows what it is made of."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from migrate.clock import Deadline, Offset, wall_offset
from migrate.drivers.libvirt import Hypervisor
from migrate.drivers.shell import Completed, run, tail
from migrate.errors import HostError
from migrate.lab.resources import PLAIN_RESOURCES, Resources


class Power(Protocol):
    """The switch of a host that can be switched off: a machine of a nested lab, or a rack's BMC."""

    def kill(self) -> None:
        """Off at once, as if its cable were pulled."""

    def hang(self) -> None:
        """It stands still: nothing of it answers, and no connection is closed."""

    def resume(self) -> None:
        """What hung goes on."""

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


class Host(Runs, Protocol):
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

    def dial(self, path: str, deadline: Deadline) -> AbstractContextManager[socket.socket]:
        """A connection to a unix socket of the host while the block runs."""

    def connect(self) -> Hypervisor:
        """A connection to the host's libvirt; the caller closes it."""

    def wall_clock(self) -> Offset:
        """The host's wall clock, on the axis."""

    def start_libvirt(self, deadline: Deadline) -> None:
        """Start the host's libvirtd."""


class Lab(Protocol):
    """What the verbs may ask of a lab."""

    name: str
    kind: str
    """What its hosts are made of, as lab files call it: ``local``, ``nested``."""
    cpu_model: str | None
    """Of guests under KVM; None: as the host's."""
    patience: float
    """How many times longer than real ones its hosts may take to start a guest, and to tell."""
    peer_address: str
    peer_interface: str
    peer_is_here: bool
    """Whether it runs on the controller's machine, and so has its clock."""
    guest_address: str
    prefix: int

    @property
    def hosts(self) -> Mapping[str, Host]:
        """By name, in the lab file's order."""

    @property
    def scenario_defaults(self) -> Mapping[str, Any]:
        """Tables of a scenario for what scenarios leave open."""

    @property
    def shared(self) -> Path:
        """A folder that every host sees under the same path as the controller."""

    @property
    def leases(self) -> Path:
        """Where the leases of its hosts are."""

    @property
    def coordinator(self) -> str | None:
        """``HOST:PORT`` of what keeps leases across controllers; None: this one has them alone."""

    def apart(self, source: str, target: str) -> Lab:
        """The lab as a guest on these two hosts sees it, whatever goes on on others.

        Other pairs may be in use at the same time by guests of the same MAC and address.
        """

    def peer(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """The probe as the guest's peer on the fabric, with pipes; ended with the block."""

    def heal(self) -> tuple[str, ...]:
        """Replace the hosts that are off; their names."""


@dataclass(frozen=True, slots=True)
class NamespaceHost:
    """A host of the local lab: namespaces on this machine, found by its process 1."""

    name: str
    root: str
    migration_address: str
    init_pid: int
    resources: Resources = PLAIN_RESOURCES
    power: Power | None = None
    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    @property
    def libvirt_target(self) -> str:
        """TCP without authentication, on a network that exists inside the lab only."""
        return f"qemu+tcp://{self.migration_address}/system"

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a program inside the host's namespaces and root."""
        return run(self.enter(argv), deadline, host=self.name, text=text, check=check)

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The argument list that runs a program on the host, without our environment."""
        clean = ["env", "-i", f"PATH={self.path}", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"]
        return ["nsenter", "--target", str(self.init_pid), "--all", "--", *clean, *argv]

    def file(self, path: str) -> Path:
        """The host's file as this machine sees it."""
        return Path(f"/proc/{self.init_pid}/root") / path.lstrip("/")

    def read(self, path: str, _deadline: Deadline) -> bytes:
        """What is in a file of the host."""
        try:
            return self.file(path).read_bytes()
        except OSError as error:
            raise HostError(f"read {path}", host=self.name, said=str(error)) from error

    @contextmanager
    def dial(self, path: str, deadline: Deadline) -> Iterator[socket.socket]:
        """A connection to a unix socket of the host while the block runs."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plug:
            plug.settimeout(max(deadline.left(), 0.001))
            try:
                plug.connect(str(self.file(path)))
            except OSError as error:
                raise HostError(f"connect to {path}", host=self.name, said=str(error)) from error
            yield plug

    def connect(self) -> Hypervisor:
        """Over the host's own socket."""
        place = self.file("/run/libvirt/libvirt-sock")
        return Hypervisor.open(f"qemu+unix:///system?socket={place}", self.name)

    def wall_clock(self) -> Offset:
        """The host shares this machine's clock."""
        return wall_offset()

    def start_libvirt(self, deadline: Deadline) -> None:
        """libvirtd as a daemon: the command returns when its sockets listen, and may fail yet."""
        self.run(["libvirtd", "--daemon", "--listen", "--timeout", "0"], deadline)
        try:
            with self.connect():
                pass
        except HostError as error:
            log = self.file("/var/log/libvirt/libvirtd.log")
            raise HostError("start libvirtd", host=self.name, said=tail(log)) from error
