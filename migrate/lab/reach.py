"""What of a lab's hosts, of its fabric and of the controller's machine is reached from where a
guest is: nothing should be.

A port like a guest's is made on a bridge (the probe's ``--tap``), and everything of ours is asked
from there, each way that a guest could: by ARP and neighbour discovery, pings, and TCP to every
port, at each address of a host by each MAC of it. Any frame that comes back from a MAC of ours is
an answer: also one of a port that is closed, for then the host's network stack listens to guests.
"""

from __future__ import annotations

import logging
import re
import select
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_interface

from migrate.clock import Deadline, until
from migrate.errors import HostError
from migrate.formats import frames
from migrate.formats.frames import Address, Answer, End
from migrate.formats.network_tools import LINKS, Link
from migrate.images.initramfs import ensure_image
from migrate.lab.api import Lab, Programs, Runs
from migrate.lab.config import cache_folder
from migrate.lab.programs import HerePrograms
from migrate.lab.resources import DATA_BRIDGE
from migrate.model import Scan, Value
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

SCAN_S = 120.0
"""For all of a lab; times its patience."""
PORT_S = 20.0
"""For a port to be made."""
SETTLE_S = 5.0
"""For duplicate address detection, which takes Linux about two seconds."""
MAC = bytes.fromhex("026d6cfe0001")
"""Ours on that port: nobody else's."""
OUR_LINK_LOCAL = IPv6Address("fe80::6d:6cff:fefe:1")
SILENCE_S = 1.5
"""After the last frame: a TCP that answers says it again after a second."""
KNOWN = (*range(1, 1024), 5900, 6640, 16509, 16514, *range(49152, 49216))
"""Where something is likely: services, VNC, OVS, libvirt, migrations that come in."""
MULTICAST = (
    End(frames.BROADCAST, IPv4Address("255.255.255.255")),
    End(bytes.fromhex("01005e000001"), IPv4Address("224.0.0.1")),
    End(*frames.ALL_NODES),
)


class LinkAddresses(Value):
    """A link of a station, as `ip addr` has it."""

    name: str
    mac: str
    addresses: tuple[str, ...] = ()
    """With their prefix: ``10.78.0.1/24``."""


class Station(Value):
    """What must not be reached: a host, the fabric, the machine; or may be, as the peer."""

    name: str
    links: tuple[LinkAddresses, ...]
    """Those that are on the guests' network, or could be."""
    ports: tuple[int, ...] = ()
    """On which something of it listens, TCP or UDP, wherever it listens."""
    may_answer: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a guest could be: on a bridge."""

    name: str
    programs: Programs
    bridge: str
    nearest: Mapping[str, Collection[str]]
    """Links, by their station, of which every port is tried from here."""


def scan_lab(lab: Lab, hosts: Collection[str] = ()) -> tuple[Scan, ...]:
    """Everything of the lab, from each host's bridge and from the fabric's; HostError where that
    can't be done. ``hosts``: from the bridges of these alone."""
    deadline = Deadline.after(SCAN_S * lab.patience)
    surroundings = lab.surroundings
    stations = [look_at(host, name, deadline) for name, host in lab.hosts.items()]
    for name, programs in surroundings.items():
        stations.append(look_at(programs, name, deadline, may_answer=name == "peer"))
    stations.append(look_at(HerePrograms(), "controller", deadline))
    places = [
        Place(name, host, host.resources.bridge, {name: (host.resources.bridge,)})
        for name, host in lab.hosts.items()
        if not hosts or name in hosts
    ]
    if "fabric" in surroundings and not hosts:
        nearest = {"fabric": (DATA_BRIDGE,), "peer": (lab.peer_interface,)}
        places.append(Place("fabric", surroundings["fabric"], DATA_BRIDGE, nearest))
    guest = IPv4Address(lab.guest_address)
    program = str(ensure_image("tiny", cache_folder()).probe)
    scans: list[Scan] = []
    for place in places:
        LOGGER.info("scanning from a guest's port on %s, bridge %s", place.name, place.bridge)
        with (
            waiting(f"the scan from {place.name}", deadline),
            bridge_port(place, program, deadline) as port,
        ):
            scans += scan(port, place, stations, guest, deadline, lab.patience)
    return tuple(scans)


@contextmanager
def bridge_port(place: Place, program: str, deadline: Deadline) -> Iterator[socket.socket]:
    """A guest's port on a bridge while the block runs: frames as the probe's ``--tap`` has them."""
    with place.programs.piped([program, "--tap", place.bridge], deadline) as port:
        port.settimeout(max(deadline.sooner(PORT_S).left(), 0.1))
        try:
            there = port.recv(2)
        except TimeoutError:
            there = b""
        if there != b"\0\0":
            raise HostError(
                f"make a guest's port on the bridge {place.bridge}",
                host=place.name,
                said="it was not made",
                remedy="the host needs /dev/net/tun, and that bridge",
            )
        yield port


def look_at(runs: Runs, name: str, deadline: Deadline, *, may_answer: bool = False) -> Station:
    """The links and the used ports of what programs can be run on."""
    links = tuple(links_of(runs, deadline))
    used = runs.run(["ss", "-H", "-l", "-n", "-t", "-u"], deadline, check=False)
    return Station(name=name, links=links, ports=used_ports(used.out), may_answer=may_answer)


def used_ports(said: str) -> tuple[int, ...]:
    """The local ports in what ``ss -H -l -n`` prints."""
    local = (line.split()[4:5] for line in said.splitlines())
    ports = {port for ends in local for end in ends if (port := _port(end)) is not None}
    return tuple(sorted(ports))


def _port(end: str) -> int | None:
    found = re.search(r":([0-9]{1,5})$", end)
    return int(found[1]) if found and int(found[1]) < 1 << 16 else None


def links_of(runs: Runs, deadline: Deadline) -> Iterator[LinkAddresses]:
    """Links of Ethernet with their addresses, and those of loopback: they are the host's, too.

    Duplicate address detection is waited for: until it is done a host does not answer.
    """
    words = ["ip", "-json", "addr"]
    links: list[Link] = []

    def is_settled() -> bool:
        links[:] = LINKS.parse(runs.run(words, deadline).out, " ".join(words))
        return not any(link.pending for link in links)

    if not until(is_settled, deadline.sooner(SETTLE_S), 0.1):
        pending = [f"{one.text} on {link.ifname}" for link in links for one in link.pending]
        LOGGER.warning("still tentative, so they do not answer yet: %s", ", ".join(pending))
    for link in links:
        if link.link_type == "ether" and link.ifname and link.address:
            addresses = tuple(known.text for known in link.addr_info if known.local)
            yield LinkAddresses(name=link.ifname, mac=link.address, addresses=addresses)


# --- what is asked --------------------------------------------------------------------------------


def _targets(station: Station) -> Iterator[End]:
    """Each address by each MAC; one of a link alone by that link's."""
    macs = dict.fromkeys(_bytes(link) for link in station.links)
    for link in station.links:
        for text in link.addresses:
            address = ip_interface(text).ip
            for mac in (_bytes(link),) if address.is_link_local else macs:
                yield End(mac, address)


def _bytes(link: LinkAddresses) -> bytes:
    return bytes.fromhex(link.mac.replace(":", ""))


def _sources(station: Station, guest: IPv4Address) -> tuple[Address, ...]:
    """As a guest, and as a neighbour in each network of the station: a guest may say so."""
    networks = [ip_interface(text).network for link in station.links for text in link.addresses]
    neighbours = (network[-6] for network in networks if network.num_addresses >= 8)
    return tuple(dict.fromkeys((guest, *neighbours)))


def _questions(station: Station, guest: IPv4Address, nearest: Collection[str]) -> Iterator[bytes]:
    """Every TCP port by the MACs of the links that are nearest; by others the ports that are known
    or used."""
    near = {_bytes(link) for link in station.links if link.name in nearest}
    ports = sorted({*KNOWN, *station.ports})
    sources = _sources(station, guest)
    for there in _targets(station):
        here = End(MAC, guest if there.address.version == 4 else OUR_LINK_LOCAL)
        others = (source for source in sources if source.version == there.address.version)
        for end in (here, *(End(MAC, source) for source in others)):
            yield from _knock(end, there)
        yield from frames.datagrams(here, there, ports)
        yield from frames.syns(here, there, frames.EVERY_PORT if there.mac in near else ports)


def _knock(here: End, there: End) -> Iterator[bytes]:
    address = there.address
    if isinstance(address, IPv4Address):
        yield frames.arp(here, address)
        yield frames.arp(End(MAC, IPv4Address(0)), address)  # RFC 5227: answered more readily
    else:
        yield frames.solicitation(here, address)
    yield frames.echo(here, there)


def _to_everybody(guest: IPv4Address) -> Iterator[bytes]:
    for there in MULTICAST:
        yield frames.echo(End(MAC, guest if there.address.version == 4 else OUR_LINK_LOCAL), there)


# --- sending and listening ------------------------------------------------------------------------


@dataclass(slots=True)
class _Exchange:
    """Frames out and in, at once; who asks for an address that we used is told that it is ours."""

    port: socket.socket
    ours: frozenset[Address]
    answers: dict[Answer, int] = field(default_factory=dict)
    _left: bytearray = field(default_factory=bytearray)
    _out: bytearray = field(default_factory=bytearray)

    def send(self, questions: Iterable[bytes], deadline: Deadline) -> int:
        """Send all of them; how many there were."""
        count = 0
        for question in questions:
            count += 1
            self._out += frames.framed(question)
            while len(self._out) > 1 << 16:
                self._step(deadline.left())
        while self._out:
            self._step(deadline.left())
        return count

    def hear_out(self, seconds: float, deadline: Deadline) -> None:
        """Go on until nothing new was heard for so long."""
        heard = -1
        while heard != len(self.answers):
            heard = len(self.answers)
            silence = deadline.sooner(seconds)
            while not silence.passed():
                self._step(silence.left())

    def _step(self, seconds: float) -> None:
        writing = [self.port] if self._out else []
        readable, writable, _ = select.select([self.port], writing, [], max(seconds, 0))
        if readable:
            self._take(self.port.recv(1 << 18))
        if writable:
            del self._out[: self.port.send(self._out)]
        if not readable and not writable and writing:
            raise HostError("send from a guest's port", said="nothing is taken any more")

    def _take(self, some: bytes) -> None:
        if not some:
            raise HostError("listen at a guest's port", said="the port is gone")
        self._left += some
        while len(self._left) >= 2:
            (length,) = struct.unpack_from(">H", self._left)
            if len(self._left) < 2 + length:
                return
            frame = bytes(self._left[2 : 2 + length])
            del self._left[: 2 + length]
            if length >= 14 and frame[6:12] != MAC:
                self._heard(frame)

    def _heard(self, frame: bytes) -> None:
        answer = frames.read_answer(frame)
        self.answers[answer] = self.answers.get(answer, 0) + 1
        wanted = frames.asked_for(frame)
        if wanted not in self.ours:
            return
        here, to = End(MAC, wanted), frame[6:12]
        if isinstance(wanted, IPv4Address):
            reply = frames.arp(here, IPv4Address(frame[28:32]), to, is_reply=True)
        else:
            reply = frames.advertisement(here, End(to, IPv6Address(frame[22:38])))
        self._out += frames.framed(reply)


def scan(
    port: socket.socket,
    place: Place,
    stations: Sequence[Station],
    guest: IPv4Address,
    deadline: Deadline,
    patience: float = 1.0,
) -> tuple[Scan, ...]:
    """Ask every station from one place."""
    asked: dict[str, int] = {}
    ours = {source for station in stations for source in _sources(station, guest)}
    port.setblocking(False)
    exchange = _Exchange(port, frozenset({*ours, OUR_LINK_LOCAL}))
    exchange.send(_to_everybody(guest), deadline)
    for station in stations:
        nearest = place.nearest.get(station.name, ())
        asked[station.name] = exchange.send(_questions(station, guest, nearest), deadline)
    exchange.hear_out(SILENCE_S * patience, deadline)
    return tuple(
        Scan(
            place=place.name,
            station=station.name,
            asked=asked[station.name],
            answers=tuple(_of(station, exchange.answers)),
            may_answer=station.may_answer,
        )
        for station in stations
    )


def _of(station: Station, answers: Iterable[Answer]) -> Iterator[str]:
    macs = {link.mac: link.name for link in station.links}
    for answer in sorted(answers, key=lambda answer: (answer.what, answer.port or 0)):
        if answer.mac in macs:
            port = "" if answer.port is None else f" {answer.port}"
            yield f"{answer.what}{port}: {answer.address} by {macs[answer.mac]}"
