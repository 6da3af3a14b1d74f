"""Ethernet frames with which a network is asked who is there, and what their answers say.

Sources: RFC 826 and 5227 (ARP), 791, 8200, 792, 4443, 4861 (neighbours), 768, 9293 (TCP).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

BROADCAST = b"\xff" * 6
ALL_NODES = (bytes.fromhex("333300000001"), IPv6Address("ff02::1"))
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
ECHO, ECHO6 = 8, 128
ECHOED, ECHOED6 = 0, 129
SOLICITATION, ADVERTISEMENT = 135, 136
SYN, RST, ACK = 0x02, 0x04, 0x10
OUR_PORT = 40321
"""Our end of all TCP and UDP."""
EVERY_PORT = range(1, 65536)


@dataclass(frozen=True, slots=True)
class End:
    """Who sends, or who is sent to."""

    mac: bytes
    address: Address


@dataclass(frozen=True, slots=True, order=True)
class Answer:
    """What a frame says of its sender."""

    mac: str
    address: str
    what: str
    """``tcp open``, ``tcp closed``, ``arp``, …; an EtherType where it is none of these."""
    port: int | None = None
    """The sender's, of TCP and UDP."""


def mac_text(mac: bytes) -> str:
    """``02:6d:6c:00:00:01``."""
    return mac.hex(":")


# --- asking ---------------------------------------------------------------------------------------


def framed(frame: bytes) -> bytes:
    """With its length before it, as the probe's ``--tap`` has frames."""
    return struct.pack(">H", len(frame)) + frame


def arp(here: End, address: IPv4Address, to: bytes = BROADCAST, *, is_reply: bool = False) -> bytes:
    """Who has ``address``; or, as a reply to ``to``, that ``here`` is there."""
    body = struct.pack(">HHBBH", 1, IPV4, 6, 4, 2 if is_reply else 1)
    target = to if is_reply else bytes(6)
    body += here.mac + here.address.packed + target + address.packed
    return to + here.mac + struct.pack(">H", ARP) + body


def solicitation(here: End, wanted: IPv6Address) -> bytes:
    """Who has an IPv6 address, asked of its solicited-node group (RFC 4291, 2.7.1)."""
    low = wanted.packed[-3:]
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:-3] + low)
    body = struct.pack(">BBHI", SOLICITATION, 0, 0, 0) + wanted.packed + b"\x01\x01" + here.mac
    return _packet(here, End(b"\x33\x33\xff" + low, group), ICMP6, body, 2)


def advertisement(here: End, there: End) -> bytes:
    """To ``there``, that ``here`` is there: solicited, and it overrides."""
    body = struct.pack(">BBHI", ADVERTISEMENT, 0, 0, 0x60000000) + here.address.packed
    return _packet(here, there, ICMP6, body + b"\x02\x01" + here.mac, 2)


def echo(here: End, there: End) -> bytes:
    """A ping."""
    is_6 = there.address.version == 6
    body = struct.pack(">BBHHH", ECHO6 if is_6 else ECHO, 0, 0, 0x6D6C, 1)
    return _packet(here, there, ICMP6 if is_6 else ICMP, body, 2)


def syns(here: End, there: End, ports: Iterable[int] = EVERY_PORT) -> Iterator[bytes]:
    """A TCP connection begun to each port."""
    body = struct.pack(">HHIIBBHHH", OUR_PORT, 0, 1, 0, 5 << 4, SYN, 1024, 0, 0)
    return _to_ports(_packet(here, there, TCP, body, 16), 16, ports)


def datagrams(here: End, there: End, ports: Iterable[int] = EVERY_PORT) -> Iterator[bytes]:
    """An empty UDP datagram to each port."""
    body = struct.pack(">HHHH", OUR_PORT, 0, 8, 0)
    return _to_ports(_packet(here, there, UDP, body, 6), 6, ports)


def _to_ports(frame: bytes, checksum: int, ports: Iterable[int]) -> Iterator[bytes]:
    """One frame to port 0 as many to others: only the port and the checksum differ."""
    changed = bytearray(frame)
    head = len(frame) - (20 if checksum == 16 else 8)
    (zero,) = struct.unpack_from(">H", frame, head + checksum)
    for port in ports:
        total = (zero ^ 0xFFFF) + port
        value = (total + (total >> 16) & 0xFFFF) ^ 0xFFFF
        struct.pack_into(">H", changed, head + 2, port)
        # A sum of zero is sent as ones: zero is "no checksum" in UDP.
        struct.pack_into(">H", changed, head + checksum, value or 0xFFFF)
        yield bytes(changed)


def _packet(here: End, there: End, protocol: int, body: bytes, checksum: int) -> bytes:
    """``body`` with its checksum put at an offset, in IP and Ethernet."""
    ends = here.address.packed + there.address.packed
    pseudo = b"" if protocol == ICMP else ends + struct.pack(">II", len(body), protocol)
    total = _sum(pseudo + body)
    body = body[:checksum] + struct.pack(">H", total) + body[checksum + 2 :]
    if there.address.version == 4:
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
        header = header[:10] + struct.pack(">H", _sum(header + ends)) + ends
    else:
        header = struct.pack(">IHBB", 6 << 28, len(body), protocol, 255) + ends
    kind = IPV4 if there.address.version == 4 else IPV6
    return there.mac + here.mac + struct.pack(">H", kind) + header + body


def _sum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total ^ 0xFFFF)


# --- answers --------------------------------------------------------------------------------------


def read_answer(frame: bytes) -> Answer:
    """What a frame says of its sender; a short or odd one says little, and is no error."""
    mac = mac_text(frame[6:12])
    (kind,) = struct.unpack_from(">H", frame.ljust(14, b"\0"), 12)
    if kind == ARP and len(frame) >= 42:
        return Answer(mac, str(IPv4Address(frame[28:32])), "arp")
    if kind == IPV4 and len(frame) >= 34:
        length, protocol = 4 * (frame[14] & 15), frame[23]
        return _payload(mac, IPv4Address(frame[26:30]), protocol, frame[14 + length :])
    if kind == IPV6 and len(frame) >= 54:
        protocol, body = frame[20], frame[54:]
        if protocol == 0 and len(body) >= 8:  # hop-by-hop options, which reports of groups have
            protocol, body = body[0], body[8 + 8 * body[1] :]
        return _payload(mac, IPv6Address(frame[22:38]), protocol, body)
    return Answer(mac, "", f"0x{kind:04x}")


_ICMP = {ECHOED: "echo", 3: "icmp unreachable"}
_ICMP6 = {ECHOED6: "echo", ADVERTISEMENT: "neighbour", SOLICITATION: "neighbour"}


def _payload(mac: str, address: Address, protocol: int, body: bytes) -> Answer:
    source = str(address)
    if protocol == TCP and len(body) >= 14:
        what = "tcp open" if body[13] & (SYN | RST) == SYN else "tcp closed"
        return Answer(mac, source, what, body[0] << 8 | body[1])
    if protocol == UDP and len(body) >= 2:
        return Answer(mac, source, "udp", body[0] << 8 | body[1])
    if protocol in (ICMP, ICMP6) and body:
        names, name = (_ICMP, "icmp") if protocol == ICMP else (_ICMP6, "icmpv6")
        return Answer(mac, source, names.get(body[0], f"{name} {body[0]}"))
    return Answer(mac, source, f"ip protocol {protocol}")


def asked_for(frame: bytes) -> Address | None:
    """The address that a frame asks for, by ARP or a neighbour's solicitation."""
    (kind,) = struct.unpack_from(">H", frame.ljust(14, b"\0"), 12)
    if kind == ARP and len(frame) >= 42 and frame[21] == 1:
        return IPv4Address(frame[38:42])
    if kind == IPV6 and len(frame) >= 78 and (frame[20], frame[54]) == (ICMP6, SOLICITATION):
        return IPv6Address(frame[62:78])
    return None
