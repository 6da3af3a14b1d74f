"""Probes in network namespaces of their own: devices that carry the traffic, come, go and loop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from migrate.analysis.outage import measure
from migrate.analysis.traffic import lower_events, observation
from migrate.clock import Deadline, now_ns
from migrate.errors import GuestError
from migrate.guest.probe import Probe
from migrate.lab.api import Lab
from migrate.model import Workload
from migrate.recorder.traffic import LOOPED, Traffic, read_back
from selftests.doubles.probe_process import STREAM, Running, received, running, wait_until

pytestmark = pytest.mark.needs_root

GUEST, PEER = "10.99.0.1", "10.99.0.2"
SOMEWHERE = "52:54:00:00:00:99"


def inside(probe: Running, *command: str) -> None:
    """Run a command where the probe is."""
    target = f"--target={probe.process.pid}"
    subprocess.run(["nsenter", target, "--net", "--mount", *command], check=True)


@contextmanager
def isolated(program: Path, where: str) -> Iterator[Running]:
    """A probe that sees the interfaces of its own namespace, and those alone, in sysfs, too."""
    with running(program, "unshare", "--net", "--mount", where=where) as probe:
        inside(probe, "mount", "-t", "sysfs", "sysfs", "/sys")
        yield probe


@pytest.fixture
def guest(program: Path) -> Iterator[Running]:
    with isolated(program, "guest") as probe:
        yield probe


@pytest.fixture
def peer(program: Path) -> Iterator[Running]:
    with isolated(program, "peer") as probe:
        yield probe


def plug(guest: Running, peer: Running, name: str, mac: str = "52:54:00:00:00:01") -> None:
    """A wire from an interface of the guest to one of the same name at its peer, both up."""
    ends = ["netns", str(peer.process.pid), "name", name]
    inside(guest, "ip", "link", "add", name, "address", mac, "type", "veth", "peer", *ends)
    inside(peer, "ip", "link", "set", name, "up")
    inside(guest, "ip", "link", "set", name, "up")


def pair(guest: Running, peer: Running) -> None:
    """A bridge over two devices: what a failover pair looks like, for kernels without one."""
    for name in ("primary", "standby"):
        plug(guest, peer, name)
    inside(guest, "ip", "link", "add", "both", "type", "bridge")
    for name in ("primary", "standby"):
        inside(guest, "ip", "link", "set", name, "master", "both")


def steer(guest: Running, device: str) -> None:
    """Have the bridge send what goes to ``SOMEWHERE`` through one of the two."""
    place = [SOMEWHERE, "dev", device, "master", "static"]
    inside(guest, "bridge", "fdb", "replace", *place)


def told(probe: Probe, *whats: str) -> list[tuple[str, str]]:
    """Of the log, what happened to which device."""
    log = probe.lower_log()
    return [(change.device, change.what) for change in log if change.what in whats]


def carriers(probe: Probe) -> list[str]:
    """The devices that carried the traffic, each once for as long as it did."""
    return [device for device, _ in groupby(name for name, _ in told(probe, "carries"))]


# --- which device carries the traffic -----------------------------------------------------------


def test_the_interface_is_the_one_without_a_master(guest: Running, peer: Running) -> None:
    """Its lower devices come first by their index, and have no address."""
    pair(guest, peer)
    assert guest.nic().name == "both"
    guest.address(GUEST, 24)
    with pytest.raises(subprocess.CalledProcessError):
        inside(guest, "ip", "address", "del", f"{GUEST}/24", "dev", "primary")
    inside(guest, "ip", "address", "del", f"{GUEST}/24", "dev", "both")
    assert guest.nic("primary").driver == "veth"


def test_the_lower_device_that_carries_is_told_at_any_time(guest: Running, peer: Running) -> None:
    pair(guest, peer)
    guest.address(GUEST, 24)
    inside(guest, "ip", "neigh", "add", PEER, "lladdr", SOMEWHERE, "dev", "both")
    steer(guest, "primary")
    guest.lower_start()
    assert sorted(told(guest, "appeared")) == [("primary", "appeared"), ("standby", "appeared")]
    guest.open_stream(STREAM)
    guest.send_stream(PEER, 9, 1000, 256)
    wait_until(lambda: carriers(guest) == ["primary"])

    inside(peer, "ip", "link", "set", "primary", "down")
    steer(guest, "standby")
    wait_until(lambda: carriers(guest) == ["primary", "standby"])
    wait_until(lambda: told(guest, "down") == [("primary", "down")])

    inside(guest, "ip", "link", "del", "primary")
    wait_until(lambda: told(guest, "gone") == [("primary", "gone")])
    plug(guest, peer, "primary")
    inside(guest, "ip", "link", "set", "primary", "master", "both")
    steer(guest, "primary")
    wait_until(lambda: carriers(guest) == ["primary", "standby", "primary"])

    guest.lower_stop()
    log = guest.lower_log()
    assert {change.driver for change in log} == {"veth"}
    primary = [change.what for change in log if change.device == "primary"]
    assert [what for what in primary if what != "counted"][-3:] == ["appeared", "up", "carries"]
    last = {change.device: change for change in log}
    assert {change.what for change in last.values()} == {"counted"}
    shares = [change.sent for change in last.values()]
    assert all(sent is not None and sent > 0 for sent in shares), "each carried for a while"
    stamps = [change.at_ns for change in log]
    assert stamps == sorted(stamps)


def test_a_lower_device_that_is_let_go_carries_no_more(
    guest: Running, peer: Running, tmp_path: Path
) -> None:
    pair(guest, peer)
    guest.lower_start()
    both = tmp_path / "both"  # at once: the probe is not to see a bridge over one
    both.write_text("link set primary nomaster\nlink set standby nomaster\n")
    inside(guest, "ip", "-batch", str(both))
    wait_until(lambda: ("standby", "gone") in told(guest, "gone"))
    # The bridge has none now, but the lowest interface without a master is another one.
    wait_until(lambda: guest.lower_log()[-1].device == guest.nic().name)


def test_an_interface_alone_counts_itself_under_each_of_its_names(
    guest: Running, peer: Running
) -> None:
    plug(guest, peer, "eth0")
    guest.lower_start()
    inside(guest, "ip", "link", "set", "eth0", "down")
    inside(guest, "ip", "link", "set", "eth0", "name", "ens5")
    inside(guest, "ip", "link", "set", "ens5", "up")
    wait_until(lambda: ("ens5", "up") in told(guest, "up"))
    assert told(guest, "appeared", "gone") == [
        ("eth0", "appeared"),
        ("eth0", "gone"),
        ("ens5", "appeared"),
    ]


def test_the_log_keeps_the_newest_and_begins_anew(guest: Running, peer: Running) -> None:
    guest.lower_start()
    assert guest.lower_log() == (), "there is nothing but the loopback"
    plug(guest, peer, "eth0")
    for _ in range(2):
        guest.lower_start()
        assert told(guest, "appeared") == [("eth0", "appeared")]
    batch = "link set eth0 down\nlink set eth0 up\n" * 600
    command = ["nsenter", f"--target={guest.process.pid}", "--net", "ip", "-batch", "-"]
    subprocess.run(command, input=batch.encode(), check=True)
    wait_until(lambda: guest.call("lower.log")["total"] > 1000)
    log, missed = guest.lower_account()
    assert len(log) == 1000
    assert missed == guest.call("lower.log")["total"] - 1000 > 0
    assert "appeared" not in {change.what for change in log}


# --- an interface that goes and comes back ------------------------------------------------------


def in_touch(guest: Running, peer: Running) -> Callable[[], bool]:
    """True once another 50 packets came both ways, and each connection had an echo."""
    more = [received(probe, probe.stream_status().received + 50) for probe in (guest, peer)]

    def echoed() -> bool:  # a wait that goes on is longer each time
        return guest.tcp_check().longest_stall_ms == guest.tcp_check().longest_stall_ms

    return lambda: all(came() for came in more) and echoed()


def lose_address(guest: Running, peer: Running) -> None:
    del peer
    inside(guest, "ip", "address", "flush", "dev", "eth0")


def lose_link(guest: Running, peer: Running) -> None:
    del peer
    inside(guest, "ip", "link", "set", "eth0", "down")


def lose_device(guest: Running, peer: Running) -> None:
    del peer
    inside(guest, "ip", "link", "del", "eth0")


def back_as(name: str) -> Callable[[Running, Running], None]:
    def plug_again(guest: Running, peer: Running) -> None:
        plug(guest, peer, name)
        peer.address(PEER, 24)

    return plug_again


def nothing(guest: Running, peer: Running) -> None:
    del guest, peer


@pytest.mark.parametrize(
    ("lose", "put_back"),
    [
        pytest.param(lose_address, nothing, id="address"),
        pytest.param(lose_link, nothing, id="link"),
        pytest.param(lose_device, back_as("eth0"), id="device"),
        pytest.param(lose_device, back_as("ens9"), id="device under another name"),
    ],
)
def test_streams_and_connections_outlive_their_interface(
    guest: Running,
    peer: Running,
    lose: Callable[[Running, Running], None],
    put_back: Callable[[Running, Running], None],
) -> None:
    plug(guest, peer, "eth0")
    guest.address(GUEST, 24)
    peer.address(PEER, 24)
    guest.lower_start()
    guest.tcp_open(PEER, peer.tcp_listen(), 2)
    to_guest, to_peer = guest.open_stream(STREAM), peer.open_stream(STREAM)
    guest.send_stream(PEER, to_peer, 1000, 256)
    peer.send_stream(GUEST, to_guest, 1000, 256)
    wait_until(in_touch(guest, peer))

    lose(guest, peer)
    wait_until(lambda: guest.stream_status().send_errors >= 100)
    put_back(guest, peer)
    guest.address(GUEST, 24)
    wait_until(in_touch(guest, peer))
    check = guest.tcp_check()
    assert (check.opened, check.alive, check.resets) == (2, 2, 0)
    assert check.longest_stall_ms >= 100, "a hundred packets, one a millisecond, were refused"
    name = guest.nic().name
    if lose is lose_device:
        assert told(guest, "appeared", "gone")[1:] == [("eth0", "gone"), (name, "appeared")]
    wait_until(lambda: guest.lower_log()[-1].what == "carries")
    assert guest.lower_log()[-1].device == name


# --- a network that returns what it gets --------------------------------------------------------

MIRROR = """
import socket
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind(("mirror", 0))
print("ready", flush=True)
while True:
    try:
        frame, (_, _, kind, *_) = link.recvfrom(2048)
        if kind != socket.PACKET_OUTGOING:
            link.send(frame)
    except OSError:  # the link is down
        pass
"""


@contextmanager
def mirror(guest: Running) -> Iterator[None]:
    """The wire of ``loop0`` ends in something that returns each frame while the block runs."""
    script = [sys.executable, "-c", MIRROR]
    command = ["nsenter", f"--target={guest.process.pid}", "--net", *script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


@pytest.fixture
def looped(guest: Running) -> Running:
    """A guest with the wire; what is sent into it is lost until something returns it."""
    ends = ["index", "100", "type", "veth", "peer", "name", "mirror", "index", "200"]
    inside(guest, "ip", "link", "add", "loop0", *ends)
    for name in ("mirror", "loop0"):
        inside(guest, "ip", "link", "set", name, "up")
    return guest


def test_a_stream_that_comes_back_is_known_again(looped: Running) -> None:
    with mirror(looped):
        looped.loop_stream(STREAM, 1000, 256)
        wait_until(received(looped, 300))
        sent = looped.stop_stream().sent
        wait_until(received(looped, sent))
    counts, got = looped.close_stream(), looped.arrivals()
    assert got.seq.tolist() == list(range(sent))
    assert (counts.strays, counts.send_errors, counts.dropped_records) == (0, 0, 0)
    # Kernel stamps are wall clock, brought back by a sampled offset: one clock, a little slack.
    assert bool(np.all(got.received_ns > got.sent_ns - 50_000))


def test_what_a_loop_sends_is_not_taken_for_what_came_back(looped: Running) -> None:
    looped.loop_stream(STREAM, 1000, 256)
    wait_until(lambda: looped.stream_status().sent > 100)
    counts = looped.close_stream()
    assert (counts.received, counts.strays) == (0, 0)


def test_a_loop_that_is_cut_has_a_gap_and_goes_on(looped: Running) -> None:
    looped.loop_stream(STREAM, 1000, 256)
    with mirror(looped):
        wait_until(received(looped, 50))
    had = looped.stream_status()
    wait_until(lambda: looped.stream_status().sent > had.sent + 100)
    with mirror(looped):
        wait_until(received(looped, had.received + 50))
    looped.close_stream()
    assert int(np.diff(looped.arrivals().seq).max()) > 100


def test_a_loop_that_can_not_be_is_told(guest: Running) -> None:
    with pytest.raises(GuestError, match="no interface but the loopback"):
        guest.loop_stream(STREAM, 1000, 256)
    with pytest.raises(GuestError, match="no interface nowhere0"):
        guest.loop_stream(STREAM, 1000, 256, name="nowhere0")
    with pytest.raises(GuestError, match="payload must be 224"):
        guest.loop_stream(STREAM, 1000, 20, name="lo")


def workload_in_a_loop(guest: Probe, peer: Probe) -> Traffic:
    lab = cast("Lab", SimpleNamespace(peer_interface="lo", peer_is_here=True))
    return Traffic(guest, peer, lab, Workload(dirty_mib=0), loops=True)


def test_a_workload_without_a_peer_is_measured_by_the_guest(looped: Running, peer: Running) -> None:
    traffic = workload_in_a_loop(looped, peer)
    with mirror(looped):
        traffic.start(Deadline.after(20))
        wait_until(received(looped, 300))
        floor = traffic.began_ns, now_ns()
    had = looped.stream_status().sent
    wait_until(lambda: looped.stream_status().sent > had + 200)
    with mirror(looped):
        wait_until(received(looped, looped.stream_status().received + 100))
        seen = read_back(traffic, guest_is_there=True, deadline=Deadline.after(20))
    found = measure(observation(seen, 1_000_000, floor))
    longest = {gap.direction: gap for gap in sorted(found.gaps, key=lambda gap: gap.length_ns)}
    assert sorted(longest) == ["egress", "ingress"]
    assert all(gap.length_ms > 200 and gap.lost > 100 for gap in longest.values())
    assert (seen.tcp, seen.notes[0]) == (None, LOOPED)
    assert "carried-by" in {event.name for event in lower_events(seen)}


def test_a_loop_that_returns_nothing_ends_the_start(looped: Running, peer: Running) -> None:
    with pytest.raises(GuestError, match="no packets arrived"):
        workload_in_a_loop(looped, peer).start(Deadline.after(0.3))


def test_of_a_guest_without_a_peer_nothing_is_left_to_measure(
    looped: Running, peer: Running
) -> None:
    traffic = workload_in_a_loop(looped, peer)
    with mirror(looped):
        traffic.start(Deadline.after(20))
    looped.process.kill()
    looped.process.wait()
    for there in (True, False):
        seen = read_back(traffic, guest_is_there=there, deadline=Deadline.after(20))
        assert seen.nothing_logged
        assert lower_events(seen) == ()
