"""From where a guest is nothing of a host is reached; and a scan that can't fail is none."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, ip_interface
from pathlib import Path

import pytest

from migrate.backends.vhost_user.ovs import BRIDGE, end_switch, ensure_switch
from migrate.clock import Deadline
from migrate.drivers.shell import Completed
from migrate.formats import frames
from migrate.formats.frames import End
from migrate.images.initramfs import ensure_image
from migrate.lab import reach
from migrate.lab.config import cache_folder
from migrate.lab.local.lab import LocalLab
from migrate.lab.namespaces import NamespaceHost
from migrate.lab.reach import MAC, MULTICAST, Place, bridge_port, links_of, look_at, scan_lab
from migrate.lab.resources import DATA_BRIDGE
from migrate.model import Scan
from migrate.report.reach import plain
from selftests.helpers import listening_in, soon


def listening(host: NamespaceHost, kind: socket.SocketKind, at: str) -> socket.socket:
    """A socket of the host that listens at an address."""
    return listening_in(Path(f"/proc/{host.init_pid}/ns/net"), kind, at)


@contextmanager
def careless(host: NamespaceHost) -> Iterator[None]:
    """A host as it would be without our care: an address on the guests' bridge, and IPv6 there."""
    own = f"/proc/sys/net/ipv6/conf/{DATA_BRIDGE}/disable_ipv6"
    address = ["dev", DATA_BRIDGE]
    rule = ["iif", DATA_BRIDGE, "lookup", "local"]
    with ExitStack() as undo:

        def both(do: list[str], back: list[str]) -> None:
            host.run(do, soon())
            undo.callback(host.run, back, soon())

        for family in ("-4", "-6"):
            both(
                ["ip", family, "rule", "add", "pref", "1", *rule],
                ["ip", family, "rule", "del", "pref", "1", *rule],
            )
        link = ["ip", "link", "set", DATA_BRIDGE, "arp"]
        both([*link, "on"], [*link, "off"])
        both(["sh", "-c", f"echo 0 >{own}"], ["sh", "-c", f"echo 1 >{own}"])
        for text in ("10.77.0.9/24", "fd77::9/64"):
            both(
                ["ip", "addr", "add", text, *address],
                ["ip", "addr", "del", text, *address],
            )
        yield


def wrong(scans: tuple[Scan, ...]) -> list[str]:
    return [f"{scan.place}: {scan.station}: {answer}" for scan in scans for answer in scan.wrong]


def test_from_the_guests_network_nothing_of_a_local_lab_answers(shared_lab: LocalLab) -> None:
    """Every port, IPv4 and IPv6, of hosts, fabric and controller, from each bridge."""
    scans = scan_lab(shared_lab)
    assert wrong(scans) == []
    asked = {(scan.place, scan.station): scan.asked for scan in scans}
    assert asked["a", "a"] > 65535 and asked["b", "b"] > 65535 and asked["fabric", "peer"] > 65535
    assert min(asked[place, "controller"] for place in ("a", "b", "fabric")) > 0
    peers = [scan for scan in scans if scan.station == "peer"]
    assert all(scan.answers for scan in peers), "the peer is there: the scan can hear"
    assert "nothing but its peer can be reached" in plain(scans)


def test_nor_does_what_a_switch_adds_to_a_host(shared_lab: LocalLab) -> None:
    """OVS has a link of its own on the host, ``dpu``, that stands for its bridge."""
    if shared_lab.record.note:
        pytest.skip(shared_lab.record.note)
    with ExitStack() as undo:
        for host in shared_lab.hosts.values():
            ensure_switch(host, soon(60))
            undo.callback(end_switch, host, soon(90))
            host.run(["ip", "link", "set", BRIDGE, "up"], soon())
        scans = scan_lab(shared_lab, ["a"])
        links = {link.name for link in look_at(shared_lab.hosts["b"], "b", soon()).links}
    assert wrong(scans) == []
    assert BRIDGE in links
    asked = {scan.station: scan.asked for scan in scans}
    assert asked["b"] > 0


def test_what_listens_on_the_guests_bridge_is_found(shared_lab: LocalLab) -> None:
    host = shared_lab.hosts["a"]
    with (
        careless(host),
        listening(host, socket.SOCK_STREAM, "0.0.0.0") as four,
        listening(host, socket.SOCK_STREAM, "::") as six,
    ):
        scans = scan_lab(shared_lab, ["a"])
        ports = four.getsockname()[1], six.getsockname()[1]
    found = wrong(scans)
    assert f"a: a: tcp open {ports[0]}: 10.77.0.9 by data" in found
    assert f"a: a: tcp open {ports[1]}: fd77::9 by data" in found
    assert any(line.startswith(f"a: a: tcp open {ports[1]}: fe80:") for line in found)
    assert "REACHED from where a guest is: a" in plain(scans)
    assert wrong(scan_lab(shared_lab, ["a"])) == [], "as it was"


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_datagram_of_which_no_answer_would_tell_does_not_arrive(
    shared_lab: LocalLab, name: str
) -> None:
    """Linux takes packets for any of its addresses on any link, unless it is told otherwise."""
    host, neighbour = shared_lab.hosts[name], IPv4Address("10.78.0.77")
    station = look_at(host, name, soon())
    address = IPv4Address(host.migration_address)
    macs = {bytes.fromhex(link.mac.replace(":", "")) for link in station.links}
    place = Place(name, host, DATA_BRIDGE, {})
    program = str(ensure_image("tiny", cache_folder()).probe)
    with (
        listening(host, socket.SOCK_DGRAM, "0.0.0.0") as service,
        bridge_port(place, program, soon()) as port,
    ):
        number = service.getsockname()[1]
        for source in (IPv4Address(shared_lab.guest_address), neighbour):
            ends = [End(mac, address) for mac in (*macs, MULTICAST[1].mac, frames.BROADCAST)]
            for there in ends:
                (frame,) = frames.datagrams(End(MAC, source), there, [number])
                port.sendall(frames.framed(frame))
        other = shared_lab.hosts["b" if name == "a" else "a"]
        with listening(other, socket.SOCK_DGRAM, "0.0.0.0") as sender:
            sender.sendto(b"on the hosts' own network", (str(address), number))
        service.settimeout(20)
        assert service.recv(100) == b"on the hosts' own network", "and nothing before that"


def test_libvirt_listens_where_the_other_hosts_are_and_nowhere_else(shared_lab: LocalLab) -> None:
    for host in shared_lab.hosts.values():
        lines = host.run(["ss", "-H", "-l", "-n", "-t", "-u"], soon()).out.splitlines()
        assert {line.split()[4] for line in lines} == {f"{host.migration_address}:16509"}


def test_who_talks_to_guests_is_alone_where_it_is(shared_lab: LocalLab) -> None:
    peer = look_at(shared_lab.surroundings["peer"], "peer", soon())
    assert [link.name for link in peer.links] == ["peer"]
    assert [str(ip_interface(text).ip) for text in peer.links[0].addresses] == [
        shared_lab.peer_address
    ]
    assert peer.ports == ()


def test_the_command_says_what_it_asked_and_what_answered(
    shared_lab: LocalLab, migrate_lab: Callable[..., object]
) -> None:
    done = migrate_lab("doctor", "--reach", "--name", shared_lab.name)
    said = getattr(done, "out", "")
    assert getattr(done, "status", None) == 0, done
    assert "from a guest's port on a: a: " in said
    assert said.endswith("nothing but its peer can be reached from where a guest is\n")


# --- addresses that are new -----------------------------------------------------------------------


class Says:
    """A host whose ``ip addr`` answers with one text after the other, the last one for good."""

    def __init__(self, *links: dict[str, object]) -> None:
        self.left = [json.dumps([link]) for link in links]

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        """See Runs."""
        assert text is None
        assert check
        assert not deadline.passed()
        said = self.left[0] if len(self.left) == 1 else self.left.pop(0)
        return Completed(tuple(argv), 0, said, "")


def link(*flags: str, **address: object) -> dict[str, object]:
    known = {"local": "fd77::9", "prefixlen": 64, **address}
    mac = "02:00:00:00:00:01"
    one = {"ifname": "br0", "link_type": "ether", "address": mac, "flags": flags}
    return {**one, "addr_info": [known]}


def test_an_address_that_is_about_to_be_a_hosts_is_waited_for() -> None:
    host = Says(link("UP", "LOWER_UP", tentative=True), link("UP", "LOWER_UP"))
    assert [one.addresses for one in links_of(host, soon())] == [("fd77::9/64",)]
    assert len(host.left) == 1, "asked twice"


@pytest.mark.parametrize(
    "one",
    [link("UP", "NO-CARRIER", tentative=True), link("LOWER_UP", tentative=True, dadfailed=True)],
)
def test_one_that_stays_tentative_is_not(
    one: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    assert len(list(links_of(Says(one, {}), soon()))) == 1, "asked once"
    assert not caplog.records


def test_what_is_tentative_for_too_long_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reach, "SETTLE_S", 0.0)
    assert list(links_of(Says(link("LOWER_UP", tentative=True)), soon()))
    assert "still tentative, so they do not answer yet: fd77::9/64 on br0" in caplog.text
