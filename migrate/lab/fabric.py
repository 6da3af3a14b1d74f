"""The fabric of a lab on this machine, and what every such lab is: a journal, leases, a peer.

The fabric is one network namespace with a bridge for each network: ``data`` for the guests'
traffic and ``mig`` for migration; the peer's interface is a port of ``data`` like any other. All
guests have one MAC and one address, so where two pairs of hosts can be used at once, each has a
segment of its own: a bridge that its hosts' ports are moved to. Every peer is in a namespace of its
own, with nothing else in it; and no namespace but a peer's takes packets from a guest
(``own_addresses.sh``).
"""

from __future__ import annotations

import contextlib
import copy
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from migrate.clock import Deadline
from migrate.drivers.shell import run
from migrate.images.initramfs import ensure_image
from migrate.lab.api import Host, Place, Programs
from migrate.lab.config import cache_folder
from migrate.lab.programs import Entered, HerePrograms
from migrate.lab.resources import DATA_BRIDGE
from migrate.lab.state import LabRecord
from migrate.model import HostFacts

PEER_ADDRESS = "10.77.0.1"
GUEST_ADDRESS = "10.77.0.10"
PREFIX = 24


class FabricLab:
    """A lab that is up, whatever its hosts are made of; see :class:`migrate.lab.api.Lab`."""

    kind: str
    cpu_model: str | None
    patience: float
    hosts: Mapping[str, Host]

    peer_address = PEER_ADDRESS
    peer_interface = "peer"
    guest_address = GUEST_ADDRESS
    peer_is_here = True
    prefix = PREFIX
    places: Mapping[str, Place]
    machine_pid_file: str | None = None

    def __init__(self, record: LabRecord) -> None:
        self.record = record
        self.name = record.config.name
        self.segment = record.peer_of(record.hosts[0].name)
        """The namespace of the peer."""

    @property
    def scenario_defaults(self) -> Mapping[str, Any]:
        """See Lab; from its lab file."""
        return self.record.config.scenario_defaults()

    @property
    def missing_hosts(self) -> tuple[HostFacts, ...]:
        """See Lab."""
        return self.record.missing

    @property
    def shared(self) -> Path:
        """See Lab; the cache."""
        return cache_folder()

    @property
    def leases(self) -> Path:
        """See Lab; beside the journal, so that they go with the lab."""
        return self.record.folder

    @property
    def coordinator(self) -> str | None:
        """See Lab; from its lab file."""
        return self.record.config.coordinator

    @property
    def surroundings(self) -> Mapping[str, Programs]:
        """See Lab; both are namespaces of this machine."""
        return {
            "fabric": Entered(HerePrograms(), self.in_fabric([])),
            "peer": Entered(HerePrograms(), self.beside_peer([])),
        }

    def in_fabric(self, argv: Sequence[str]) -> list[str]:
        """The argument list that runs a program in the fabric's network namespace."""
        return ["ip", "netns", "exec", self.record.fabric, *argv]

    def beside_peer(self, argv: Sequence[str]) -> list[str]:
        """The argument list that runs a program in the peer's network namespace."""
        return ["ip", "netns", "exec", self.segment, *argv]

    def data_ports(self, host: str) -> Sequence[str]:
        """The fabric's ports that carry the traffic of a host's guests."""
        raise NotImplementedError

    def isolate_pair(self, source: str, target: str) -> Self:
        """The lab as a guest on these two hosts sees it, whatever goes on on others.

        Their ports are joined to the segment of ``source``: who calls this has leased both.
        """
        deadline = Deadline.after(20)
        if len(self.hosts) < 4:
            return self
        isolated = copy.copy(self)
        isolated.segment = self.record.peer_of(source)
        segment = _bridge_of(isolated.segment)
        made = self.record.folder / f"{segment}.segment"
        if isolated.segment != self.segment and not made.exists():
            _make_segment(self.record.fabric, isolated.segment, deadline)
            made.touch()
        ports = (port for host in (source, target) for port in self.data_ports(host))
        lines = [f"link set {port} master {segment}" for port in ports]
        ip_batch(self.record.fabric, lines, deadline)
        return isolated

    @contextlib.contextmanager
    def peer(self) -> Iterator[subprocess.Popen[bytes]]:
        """The peer ends when its input does: also when the controller is killed."""
        image = ensure_image("tiny", cache_folder())
        process = subprocess.Popen(
            self.beside_peer([str(image.probe), "--fifo", "20"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for the controller: it still has to read the peer's log.
            start_new_session=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def interact(self, host: str, argv: Sequence[str], *, terminal: bool) -> int:
        """See Lab."""
        raise NotImplementedError

    def replace_dead_hosts(self) -> tuple[str, ...]:
        """See Lab."""
        raise NotImplementedError

    def is_healthy(self) -> bool:
        """Whether all of it is there, and still runs; hosts are each kind's to look at."""
        return Path("/run/netns", self.segment).exists()

    def close(self) -> None:
        """See Lab."""
        raise NotImplementedError

    def summary(self) -> Iterator[str]:
        """What it is made of, a line each."""
        for host in self.record.hosts:
            yield f"{host.name}: root {host.root}, {host.address}, {host.namespace}"
            yield f"  provides {self.hosts[host.name].resources.summary()}"
        for absent in self.missing_hosts:
            yield f"{absent.host}: not there: {absent.capability('root').reason}"
        if self.record.share is not None:
            yield f"shared folder: {self.record.share}"
        pages = self.record.note or f"{self.record.huge_pages} huge pages of 2 MiB reserved"
        yield f"fabric: {self.record.fabric}, peer {self.peer_address}; {pages}"

    def as_json(self) -> str:
        """See Lab; its journal."""
        return self.record.model_dump_json(indent=1)


def make_fabric(
    record: LabRecord, networks: Sequence[str], deadline: Deadline, *own_links: str
) -> None:
    """The fabric's namespace with a bridge for each network, and the peer on ``data``.

    ``own_links`` are those on which it has addresses of its own.
    """
    make_namespace(record.fabric, deadline, *own_links)
    others = (bridge for bridge in networks if bridge != DATA_BRIDGE)
    ip_batch(record.fabric, [line for name in others for line in bridge(name)], deadline)
    _make_segment(record.fabric, record.peer_of(record.hosts[0].name), deadline)


def own_addresses() -> str:
    """The script that has a network stack take packets for itself from its arguments alone."""
    return files("migrate.lab").joinpath("own_addresses.sh").read_text()


def make_namespace(name: str, deadline: Deadline, *own_links: str) -> None:
    """A network namespace that takes packets for itself from these links alone."""
    run(["ip", "netns", "add", name], deadline)
    script = ["sh", "-c", own_addresses(), "sh", *own_links]
    run(["ip", "netns", "exec", name, *script], deadline)
    ip_batch(name, ["link set lo up"], deadline)


def _make_segment(fabric: str, namespace: str, deadline: Deadline) -> None:
    """A bridge of the fabric, and on it the peer in ``namespace``; anew, if a controller that was
    killed left half of it."""
    if Path("/run/netns", namespace).exists():
        run(["ip", "netns", "del", namespace], deadline)
    gone = ["ip", "-netns", fabric, "link", "del", _bridge_of(namespace)]
    run(gone, deadline, check=False)
    make_namespace(namespace, deadline, "peer")
    name = _bridge_of(namespace)
    port = f"{name}-peer"
    there = [
        *bridge(name),
        f"link add {port} type veth peer name peer netns {namespace}",
        f"link set {port} master {name} up",
    ]
    ip_batch(fabric, there, deadline)
    here = [f"addr add {PEER_ADDRESS}/{PREFIX} dev peer", "link set peer up"]
    ip_batch(namespace, here, deadline)
    # A veth leaves checksums to a device that it hasn't got; OVS-DPDK hands them to the guest as
    # they are, and the guest drops the packet. So the peer works them out itself.
    enter = ["ip", "netns", "exec", namespace]
    run([*enter, "ethtool", "-K", "peer", "tx", "off"], deadline, remedy="apt-get install ethtool")


def bridge(name: str) -> tuple[str, str]:
    """Lines that make a bridge: it has no address, and says nothing of its own to its ports."""
    return f"link add {name} type bridge mcast_snooping 0", f"link set {name} arp off up"


def _bridge_of(namespace: str) -> str:
    """``data`` of ``mlab-local.1``, ``data3`` of ``mlab-local.3``."""
    number = namespace.partition(".")[2]
    return DATA_BRIDGE if number == "1" else DATA_BRIDGE + number


def ip_batch(namespace: str, lines: list[str], deadline: Deadline) -> None:
    """Lines of `ip -batch` in a network namespace."""
    run(["ip", "-netns", namespace, "-batch", "-"], deadline, text="\n".join(lines) + "\n")
