"""The shapes of a probe's answers, by its protocol (``docs/probe-protocol.md``).

A guest can say anything, so they are closed: types, lengths and ranges are checked before a value
is used. Numbers fit into 64 bits, also after they are laid on another clock.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, Strict, model_validator

from migrate.model import LowerChange, MemoryCheck, Nic, TcpCheck, Value, WorkSample

MOST_NS: Final = 10 * 366 * 86_400 * 10**9
"""Of a stamp or a length of time: no guest is up for ten years."""
MOST_RECORDS: Final = 4 << 20
"""Of a log of a stream (``guest-images/probe/stream.c``)."""
_NEWEST: Final = 1000
"""Of late ticks, drops, changes of devices, and frames."""
_SECONDS: Final = 4000
_CONNECTIONS: Final = 64

Text = Annotated[str, Strict(), Field(max_length=64)]
Features = Annotated[str, Strict(), Field(max_length=256, pattern=r"^[01]*$")]
Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=0, lt=1 << 53)]
Stamp = Annotated[int, Strict(), Field(ge=0, le=MOST_NS)]
Real = Annotated[float, Strict(), Field(ge=0, le=1e12)]
Port = Annotated[int, Strict(), Field(ge=1, le=65535)]
Records = Annotated[int, Strict(), Field(ge=0, le=MOST_RECORDS)]
MOST_OUTPUT: Final = 64 << 10
"""Bytes that a probe keeps of each output of a command (``guest-images/probe/run.c``)."""


def _decoded(data: object) -> bytes:
    """ValueError for what is no base64."""
    if isinstance(data, str):
        return base64.b64decode(data, validate=True)
    raise ValueError("no text")


Output = Annotated[bytes, BeforeValidator(_decoded), Field(max_length=MOST_OUTPUT)]


class Hello(Value):
    """Who answers."""

    protocol: Count
    version: Text
    pid: Count
    fifo: Flag
    """Whether the stream's thread runs with real-time priority."""
    uptime_ms: Count
    mono_ns: Stamp
    real_ns: Annotated[int, Strict(), Field(ge=0, lt=1 << 63)]


class Clock(Value):
    """The probe's clocks."""

    mono_ns: Stamp
    real_ns: Annotated[int, Strict(), Field(ge=0, lt=1 << 63)]


class Bound(Value):
    """Where it listens."""

    port: Port


class NicAnswer(Value):
    """An interface as the guest sees it."""

    name: Text
    driver: Text
    mac: Text
    mtu: Count
    carrier: Flag
    features: Features = ""
    rx_queues: Count
    tx_queues: Count

    def nic(self) -> Nic:
        """As it is recorded."""
        return Nic(**dict(self))


class StreamCounts(Value):
    """One side's account of its stream; stamps by its own clock, 0 before the first packet."""

    open: Flag
    sending: Flag
    sent: Count
    skipped: Count
    """Slots that were missed because the sender was late; they used up no number."""
    send_errors: Count
    """Numbers that the kernel refused to send; to the receiver they are lost."""
    first_sent_ns: Stamp
    last_sent_ns: Stamp
    received: Count
    strays: Count
    unlogged: Count
    """Arrivals that no longer found room in the log: it tells of none after the last row."""
    dropped_records: Count
    """Arrivals or receipts that no longer found room in a log."""
    socket_drops: Count
    """Arrivals that the kernel dropped because the probe was too slow: not the network's loss."""
    jumps: Count


class Page(Value):
    """A part of a log."""

    total: Records
    begin: Records = Field(alias="from")
    count: Records
    data: Annotated[str, Strict()]
    """Base64 of its records, as they lie in memory."""

    def records(self, shape: np.dtype[Any], begin: int, most: int) -> NDArray[Any]:
        """Of a page that was asked for from ``begin`` on; ValueError if it is not that page."""
        data = base64.b64decode(self.data, validate=True)
        if self.begin != begin or len(data) != self.count * shape.itemsize or self.count > most:
            raise ValueError(f"{len(data)} bytes from {self.begin} on are not the page asked for")
        if not self.count and begin < self.total:
            raise ValueError(f"it has {self.total} records, and gives {begin}")
        return np.frombuffer(data, dtype=shape)


def impossible(log: NDArray[Any], due: int) -> str:
    """What can't be in a log of packets of which ``due`` were due at most; empty: nothing.

    Numbers count what was sent, from 0 on; a network may deliver twice.
    """
    names = log.dtype.names or ()
    for name in names:
        most = due - 1 if name == "seq" else MOST_NS
        if len(log) and (highest := int(log[name].max())) > most:
            return f"a record's {name} is {highest}, more than {most}"
    return f"it has {len(log)} records, {due} were due" if len(log) > 2 * due else ""


class Drops(Value):
    """How many packets a socket had dropped by the time that rows of its log were received."""

    drops: Annotated[tuple[tuple[Records, Count], ...], Field(max_length=_NEWEST)]


class Jump(Value):
    """The sender's tick came late: from ``at_ns``, ``delta_ns`` passed instead of one interval."""

    at_ns: Stamp
    delta_ns: Stamp


class Jumps(Value):
    """The newest late ticks."""

    total: Count
    jumps: Annotated[tuple[tuple[Stamp, Stamp], ...], Field(max_length=_NEWEST)]


class Pages(Value):
    """Of memory."""

    pages: Count


class Dirtied(Value):
    """What the writer of memory has done."""

    pages: Count
    writes: Count
    mib_s: Real


class Verified(Value):
    """Memory that was read back; what is said of a wrong page is said of none."""

    pages: Count
    writes: Count
    wrong_page: Annotated[int, Strict(), Field(ge=-1, lt=1 << 53)]
    offset: Count = 0
    expected: Text = ""
    found: Text = ""
    generation: Count = 0
    found_generation: Annotated[int, Strict(), Field(ge=-1, lt=1 << 53)] = -1

    def check(self) -> MemoryCheck:
        """As it is recorded."""
        if self.wrong_page < 0:
            return MemoryCheck(pages=self.pages, writes=self.writes)
        earlier = self.found_generation
        stale = f", which pass {earlier} wrote" if earlier >= 0 else ""
        return MemoryCheck(
            pages=self.pages,
            writes=self.writes,
            wrong_page=self.wrong_page,
            expected=f"{self.expected} of pass {self.generation}",
            found=f"{self.found} at byte {self.offset}{stale}",
        )


class Work(Value):
    """What the workload had done, second by second: stamp, pages, packets, bytes."""

    seconds: Annotated[tuple[tuple[Stamp, Count, Count, Count], ...], Field(max_length=_SECONDS)]

    def samples(self) -> tuple[WorkSample, ...]:
        """As they are recorded."""
        return tuple(
            WorkSample(at_ns=at_ns, pages=pages, packets=packets, tcp_bytes=tcp_bytes)
            for at_ns, pages, packets, tcp_bytes in self.seconds
        )


class Tcp(Value):
    """How connections fared."""

    opened: Count
    alive: Count
    resets: Count
    stall_ms: Real
    waiting_ms: Annotated[tuple[Real, ...], Field(max_length=_CONNECTIONS)] | None = None

    def check(self) -> TcpCheck:
        """As it is recorded."""
        return TcpCheck(
            opened=self.opened,
            alive=self.alive,
            resets=self.resets,
            longest_stall_ms=self.stall_ms,
            waiting_ms=self.waiting_ms,
        )


_What = Literal["appeared", "gone", "up", "down", "carries", "counted"]


class Lowers(Value):
    """The newest changes of devices that can carry the guest's traffic."""

    total: Count
    changes: Annotated[
        tuple[tuple[Stamp, Text, Text, _What, Count | None, Count | None], ...],
        Field(max_length=_NEWEST),
    ]

    def lower_changes(self) -> tuple[LowerChange, ...]:
        """As they are recorded."""
        names = LowerChange.model_fields
        return tuple(
            LowerChange.model_validate(dict(zip(names, change, strict=True)))
            for change in self.changes
        )

    @model_validator(mode="after")
    def _newest_of_all(self) -> Self:
        if self.total < len(self.changes):
            raise ValueError("more changes than it counted")
        return self


class Ran(Value):
    """Whether a command has ended, and then how, and what it said."""

    ended: Flag
    status: Annotated[int, Strict(), Field(ge=0, le=255)] = 0
    signal: Annotated[int, Strict(), Field(ge=0, le=127)] = 0
    """That ended it; 0: none."""
    out: Output = b""
    errors: Output = b""
    out_bytes: Count = 0
    errors_bytes: Count = 0
    """How many there were."""


class Announcement(Value):
    """A frame that tells switches or neighbours where a MAC is."""

    at_ns: Stamp
    kind: Literal["rarp", "garp", "arp", "na", "tcp"]
    """``garp``: gratuitous ARP; ``na``: IPv6 neighbour advertisement; ``tcp``: the first frame of
    TCP after 30 ms without any."""
    mac: Text
    """Of the sender, from the Ethernet header."""
    length: Count


class Frames(Value):
    """The newest frames."""

    total: Count
    frames: Annotated[tuple[Announcement, ...], Field(max_length=_NEWEST)]

    @model_validator(mode="after")
    def _newest_of_all(self) -> Self:
        if self.total < len(self.frames):
            raise ValueError("more frames than it counted")
        return self
