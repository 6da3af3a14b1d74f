"""Frames that ask a network who is there are right, and any answer at all is read."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.formats import frames
from migrate.formats.frames import Answer, End

OURS4, THEIRS6 = IPv4Address("10.77.0.10"), IPv6Address("fe80::2")
HERE4 = End(bytes.fromhex("026d6cfe0001"), OURS4)
THERE4 = End(bytes.fromhex("026d6c000002"), IPv4Address("10.78.0.1"))
HERE6 = End(HERE4.mac, IPv6Address("fe80::1"))
THERE6 = End(THERE4.mac, THEIRS6)
BOTH = pytest.mark.parametrize(("here", "there"), [(HERE4, THERE4), (HERE6, THERE6)])


def ones(data: bytes) -> int:
    """What a receiver adds up: all ones, if the checksum in it is right."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


def payload(frame: bytes, here: End, there: End, protocol: int) -> bytes:
    """The pseudo header of TCP and UDP, and what they carry."""
    body = frame[14 + (20 if here.address.version == 4 else 40) :]
    ends = here.address.packed + there.address.packed
    return ends + struct.pack(">II", len(body), protocol) + body


@BOTH
@pytest.mark.parametrize(
    ("ask", "protocol"), [(frames.syns, frames.TCP), (frames.datagrams, frames.UDP)]
)
def test_every_port_is_asked_with_a_checksum_that_a_receiver_takes(
    here: End, there: End, ask: type, protocol: int
) -> None:
    asked = list(ask(here, there))
    head = 14 + (20 if here.address.version == 4 else 40)
    ports = [struct.unpack_from(">H", frame, head + 2)[0] for frame in asked]
    assert ports == list(range(1, 65536))
    assert {ones(payload(frame, here, there, protocol)) for frame in asked} == {0xFFFF}
    if here.address.version == 4:
        assert {ones(frame[14:34]) for frame in asked} == {0xFFFF}


def answered(frame: bytes, flags: int) -> bytes:
    """The frame turned round, as its receiver would say it."""
    head = 14 + (20 if frame[12:14] == b"\x08\x00" else 40)
    size, at = (4, 26) if head == 34 else (16, 22)
    ends = frame[at + size : at + 2 * size] + frame[at : at + size]
    tcp = bytearray(frame[head:])
    tcp[0:4] = tcp[2:4] + tcp[0:2]
    tcp[13] = flags
    return frame[6:12] + frame[:6] + frame[12:at] + ends + frame[at + 2 * size : head] + bytes(tcp)


@BOTH
def test_a_port_that_is_open_and_one_that_is_closed(here: End, there: End) -> None:
    (frame,) = frames.syns(here, there, [16509])
    mac, address = "02:6d:6c:00:00:02", str(there.address)
    opened = frames.read_answer(answered(frame, frames.SYN | frames.ACK))
    assert opened == Answer(mac, address, "tcp open", 16509)
    closed = frames.read_answer(answered(frame, frames.RST | frames.ACK))
    assert closed == Answer(mac, address, "tcp closed", 16509)


def test_who_asks_for_an_address_is_understood() -> None:
    assert frames.asked_for(frames.arp(HERE4, IPv4Address("10.77.0.1"))) == IPv4Address("10.77.0.1")
    assert frames.asked_for(frames.solicitation(HERE6, THEIRS6)) == THEIRS6
    assert frames.asked_for(frames.arp(HERE4, OURS4, is_reply=True)) is None
    assert frames.asked_for(frames.advertisement(HERE6, THERE6)) is None


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (frames.arp(THERE4, OURS4, HERE4.mac, is_reply=True), "arp"),
        (frames.advertisement(THERE6, HERE6), "neighbour"),
        (frames.echo(THERE4, HERE4), "icmp 8"),
        (bytes(6) + THERE4.mac + b"\x88\xcc", "0x88cc"),
    ],
)
def test_whatever_comes_from_a_mac_is_an_answer(frame: bytes, what: str) -> None:
    answer = frames.read_answer(frame)
    assert (answer.mac, answer.what) == ("02:6d:6c:00:00:02", what)


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x08\x00", b"\x08\x06", b"\x86\xdd"]))
def test_no_frame_is_too_odd(tail: bytes, kind: bytes) -> None:
    frame = bytes(12) + kind + tail
    frames.read_answer(frame)
    frames.asked_for(frame)
