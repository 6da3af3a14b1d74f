"""A host that is reached over ssh and libvirt alone, whatever it is made of."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from migrate.clock import Deadline, Offset, offset_of
from migrate.drivers.libvirt import Hypervisor
from migrate.drivers.shell import Completed
from migrate.drivers.ssh import Connection
from migrate.drivers.ssh_address import Address
from migrate.formats.answers import Count, Part, Shape
from migrate.lab.api import Power
from migrate.lab.resources import Resources
from migrate.lab.small_files import RemoteFiles, SmallFiles


class _Clock(Part):
    real_ns: Count


CLOCK = Shape(_Clock)
CLOCK_ROUNDS = 24
CLOCK_S = 10.0


@dataclass(frozen=True, slots=True)
class Reach:
    """How a remote host is reached, beside ssh."""

    libvirt: str
    """The controller's URI."""
    libvirt_target: str
    """The URI by which another host's libvirt reaches it."""
    program: str
    """The probe's path on the host: it reports the host's clock, and relays to sockets there."""
    start_libvirt: tuple[str, ...] = ("libvirtd", "--daemon", "--listen", "--timeout", "0")
    lease_name: str | None = None
    """What its lease is called where several labs may have the host; None: its name in its lab."""


class RemoteHost:
    """A host at an address; one ssh connection is kept, and closed by :meth:`close`."""

    def __init__(
        self,
        address: Address,
        root: str,
        migration_address: str,
        resources: Resources,
        reach: Reach,
        power: Power | None = None,
    ) -> None:
        self.name = address.host
        self.root = root
        self.migration_address = migration_address
        self.resources = resources
        self.power = power
        self.address = address
        self.lease_name = reach.lease_name
        self._reach = reach
        self._ssh = Connection(address)

    @property
    def libvirt_target(self) -> str:
        """See Host."""
        return self._reach.libvirt_target

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a program on the host."""
        return self._ssh.run(argv, deadline, text=text, check=check)

    def piped(
        self, argv: Sequence[str], deadline: Deadline
    ) -> AbstractContextManager[socket.socket]:
        """See Programs."""
        return self._ssh.piped(argv, deadline)

    def file(self, path: str) -> None:
        """None: it lies on another machine."""

    def read(self, path: str, deadline: Deadline) -> bytes:
        """What is in a file of the host."""
        return self._ssh.read(path, deadline)

    @contextmanager
    def small_files(self, deadline: Deadline) -> Iterator[SmallFiles]:
        """See Host; by the probe, over one channel of ssh."""
        with self._ssh.talking([self._reach.program, "--files"], deadline) as lines:
            yield RemoteFiles(self.name, lines)

    def dial(self, path: str, deadline: Deadline) -> AbstractContextManager[socket.socket]:
        """A connection to a unix socket of the host, over ssh, while the block runs."""
        return self._ssh.piped([self._reach.program, "--relay", path], deadline)

    def connect(self) -> Hypervisor:
        """Over the management network."""
        return Hypervisor.open(self._reach.libvirt, self.name, self.address.namespace)

    def wall_clock(self) -> Offset:
        """See Host; by round trips over ssh to the probe, which reports its host's clock."""
        deadline = Deadline.after(CLOCK_S)
        with self._ssh.talking([self._reach.program], deadline) as lines:

            def read() -> int:
                answer = lines.ask('{"id": 1, "do": "clock"}', deadline)
                return CLOCK.parse(answer, "read the clock", host=self.name).real_ns

            return offset_of(f"{self.name}.wall", read, CLOCK_ROUNDS)

    def start_libvirt(self, deadline: Deadline) -> None:
        """See Host; by the lab's command, which returns when its sockets listen."""
        self.run(self._reach.start_libvirt, deadline)
        with self.connect():
            pass

    def close(self) -> None:
        """Let the ssh connection go."""
        self._ssh.close()
