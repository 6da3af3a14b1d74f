"""The end of a stream off the wire: packets put together, and what is not captured is told."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.lab.api import Host
from migrate.lab.resources import PLAIN_RESOURCES
from migrate.recorder.events import Listener
from migrate.recorder.stream_capture import (
    KEPT_BYTES,
    Segment,
    StreamCapture,
    capture_stream,
    contiguous,
    segment,
)
from selftests.doubles.vmstate_stream import with_devices

ADDRESS = "192.0.2.7"
PORT = 49152


def packet(
    number: int, content: bytes, *, port: int = PORT, to: str = ADDRESS, protocol: int = 6
) -> bytes:
    tcp = struct.pack(">HHIIBBHHH", 33333, port, number, 0, 8 << 4, 0x10, 500, 0, 0) + bytes(12)
    length = 20 + len(tcp) + len(content)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, length, 1, 0, 64, protocol, 0)
    return ip + socket.inet_aton("192.0.2.1") + socket.inet_aton(to) + tcp + content


def test_a_packet_is_a_segment_without_its_padding() -> None:
    told = segment(packet(5, b"abc") + bytes(6), ADDRESS)
    assert told == Segment((33333, PORT), 5, b"abc")


@pytest.mark.parametrize(
    "other",
    [
        packet(5, b"abc", port=16509),
        packet(5, b"abc", to="192.0.2.8"),
        packet(5, b"abc", protocol=17),
        packet(5, b""),
        packet(5, b"abc")[:30],
        b"\x60" + packet(5, b"abc")[1:],
        b"",
    ],
    ids=["libvirt's", "another host's", "udp", "empty", "short", "IPv6", "nothing"],
)
def test_what_is_not_of_the_migration_is_none(other: bytes) -> None:
    assert segment(other, ADDRESS) is None


@given(st.binary(min_size=1, max_size=60), st.integers(0, 2**32 - 1), st.data())
def test_whatever_comes_twice_or_out_of_order_is_put_together(
    whole: bytes, origin: int, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole)), max_size=6)) | {0, len(whole)})
    pieces = [Segment((1, PORT), (origin + a) % 2**32, whole[a:b]) for a, b in pairwise(cuts)]
    again = data.draw(st.lists(st.sampled_from(pieces), max_size=4))
    sent = data.draw(st.permutations(pieces + again))
    assert contiguous(sent) == [whole]


def test_only_what_comes_after_a_hole_is_the_end() -> None:
    told = [Segment((1, PORT), 0, b"ab"), Segment((1, PORT), 3, b"de"), Segment((2, PORT), 9, b"z")]
    assert contiguous(told) == [b"de", b"z"]


def captured(packets: Sequence[bytes]) -> StreamCapture:
    capture = StreamCapture()
    for one in packets:
        capture.keep(one)
    capture.read(ADDRESS)
    return capture


def test_the_devices_of_a_captured_end() -> None:
    stream = with_devices().stream()
    pieces = [packet(2**32 - 20 + at, stream[at : at + 30]) for at in range(0, 20, 30)]
    pieces += [packet(at + 10, stream[at + 30 : at + 60]) for at in range(0, len(stream), 30)]
    capture = captured([*pieces, packet(0, b"pages", port=PORT + 1)])
    assert capture.ending is not None
    assert {one.name for one in capture.ending.sections} >= {"0000:00:02.0/virtio-net", "rtc"}
    assert not capture.unseen


def test_an_end_that_was_not_captured_is_told() -> None:
    assert "nothing of it was captured" in captured([]).unseen
    told = captured([packet(0, b"no description")])
    assert told.ending is None
    assert "no description of the devices" in told.unseen


def test_no_more_is_kept_than_the_end() -> None:
    capture = StreamCapture()
    for _ in range(3 * KEPT_BYTES // (1 << 20)):
        capture.keep(bytes(1 << 20))
    assert capture.size == KEPT_BYTES
    assert len(capture.packets) == KEPT_BYTES >> 20


def host(namespace: Path | None) -> Host:
    return cast(
        "Host", SimpleNamespace(name="a", file=lambda _path: namespace, resources=PLAIN_RESOURCES)
    )


def test_a_host_whose_packets_are_out_of_reach_says_so() -> None:
    with capture_stream(host(None), ADDRESS, Listener()) as capture:
        pass
    assert "hosts over ssh" in capture.unseen


def test_a_namespace_that_is_gone_says_so(tmp_path: Path) -> None:
    with capture_stream(host(tmp_path / "gone"), ADDRESS, Listener()) as capture:
        pass
    assert "No such file" in capture.unseen


@pytest.mark.needs_root
def test_a_guest_that_never_stopped_leaves_nothing() -> None:
    with capture_stream(host(Path("/proc/self/ns/net")), ADDRESS, Listener()) as capture:
        pass
    assert "nothing of it was captured" in capture.unseen
