"""The fabric of a lab on this machine, and what every such lab is: a journal, leases, a peer.

The fabric is one network namespace with a bridge for each network: ``data`` for the guests'
traffic and ``mig`` for migration; the peer's interface is a port of ``data`` like any other.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from migrate.clock import Deadline
from migrate.image import ensure_image
from migrate.lab.config import cache_folder
from migrate.lab.hosts import DATA_BRIDGE, Host
from migrate.lab.journal import LabRecord
from migrate.shell import run

PEER_ADDRESS = "10.77.0.1"
GUEST_ADDRESS = "10.77.0.10"
PREFIX = 24
# What an attempt makes on a host, a line each. vDPA devices of other names are not ours.
LEFT = r"""
ps -e -o pid=,comm= | while read -r pid name; do
    case $name in qemu-sys*) echo "process $pid $name" ;; esac
done
ip -brief link show type tun | while read -r link _; do
    case $link in vnet*) echo "link $link" ;; esac
done
for path in /sys/bus/vdpa/devices/mlab*; do
    [ ! -e "$path" ] || echo "vDPA device ${path##*/}"
done
for path in /run/migrate-lab/vf-*.json; do
    [ ! -e "$path" ] || echo "VFs by $path"
done
"""


class FabricLab:
    """A lab that is up, whatever its hosts are made of."""

    peer_address = PEER_ADDRESS
    peer_interface = "peer"
    guest_address = GUEST_ADDRESS
    prefix = PREFIX

    def __init__(self, record: LabRecord, hosts: Mapping[str, Host]) -> None:
        self.record = record
        self.name = record.config.name
        self._all = hosts

    @property
    def scenario_defaults(self) -> Mapping[str, Any]:
        """Of its lab file."""
        return self.record.config.scenario_defaults()

    @property
    def shared(self) -> Path:
        """The cache: every host sees it at its own path."""
        return cache_folder()

    @property
    def leases(self) -> Path:
        """Beside the journal: they go with the lab."""
        return self.record.folder

    @property
    def coordinator(self) -> str | None:
        """Of its lab file."""
        return self.record.config.coordinator

    def in_fabric(self, argv: Sequence[str]) -> list[str]:
        """The argument list that runs a program in the fabric's network namespace."""
        return ["ip", "netns", "exec", self.record.fabric, *argv]

    @contextlib.contextmanager
    def peer(self) -> Iterator[subprocess.Popen[bytes]]:
        """The peer ends when its input does: also when the controller is killed."""
        image = ensure_image("tiny", cache_folder(), lambda _text: None)
        process = subprocess.Popen(
            self.in_fabric([str(image.probe), "--fifo", "20"]),
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

    def leftovers(self, hosts: Sequence[str]) -> tuple[str, ...]:
        """Domains and their processes, taps, vDPA devices, VFs that were not put back."""
        found: list[str] = []
        for host in (self._all[name] for name in hosts):
            with host.connect() as hypervisor:
                found += [f"domain {name} on {host.name}" for name in hypervisor.domains()]
            looking = host.run(["sh", "-c", LEFT], Deadline.after(20))
            found += [f"{line} on {host.name}" for line in looking.out.splitlines()]
        return tuple(found)


def make_fabric(record: LabRecord, networks: Sequence[str], deadline: Deadline) -> None:
    """The fabric's namespace with a bridge for each network, and the peer on ``data``."""
    run(["ip", "netns", "add", record.fabric], deadline)
    lines = [
        "link set lo up",
        *(
            line
            for bridge in networks
            # A bridge would answer for the peer's address, and take its packets past its port.
            for line in (f"link add {bridge} type bridge", f"link set {bridge} arp off up")
        ),
        "link add peer type veth peer name peer-port",
        f"link set peer-port master {DATA_BRIDGE} up",
        f"addr add {PEER_ADDRESS}/{PREFIX} dev peer",
        "link set peer up",
    ]
    ip_batch(record.fabric, lines, deadline)
    # A veth leaves checksums to a device that it hasn't got; OVS-DPDK hands them to the guest as
    # they are, and the guest drops the packet. So the peer works them out itself.
    enter = ["ip", "netns", "exec", record.fabric]
    run([*enter, "ethtool", "-K", "peer", "tx", "off"], deadline, remedy="apt-get install ethtool")


def ip_batch(namespace: str, lines: list[str], deadline: Deadline) -> None:
    """Lines of `ip -batch` in a network namespace."""
    run(["ip", "-netns", namespace, "-batch", "-"], deadline, text="\n".join(lines) + "\n")
