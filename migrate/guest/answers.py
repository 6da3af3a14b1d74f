"""What a probe answers, by its protocol (``guest-images/README.md``)."""

from __future__ import annotations

from migrate.model import Value


class Hello(Value):
    """Who answers."""

    protocol: int
    version: str
    pid: int
    fifo: bool
    """Whether the stream's thread runs with real-time priority."""
    uptime_ms: int
    mono_ns: int
    real_ns: int


class StreamCounts(Value):
    """One side's account of its stream; stamps by its own clock, 0 before the first packet."""

    open: bool
    sending: bool
    sent: int
    skipped: int
    """Slots that were missed because the sender was late; they used up no number."""
    send_errors: int
    """Numbers that the kernel refused to send; to the receiver they are lost."""
    first_sent_ns: int
    last_sent_ns: int
    received: int
    strays: int
    unlogged: int
    """Arrivals that no longer found room in the log: it tells of none after the last row."""
    dropped_records: int
    """Arrivals or receipts that no longer found room in a log."""
    socket_drops: int
    """Arrivals that the kernel dropped because the probe was too slow: not the network's loss."""
    jumps: int


class Jump(Value):
    """The sender's tick came late: from ``at_ns``, ``delta_ns`` passed instead of one interval."""

    at_ns: int
    delta_ns: int


class Announcement(Value):
    """A frame that tells switches or neighbours where a MAC is."""

    at_ns: int
    kind: str
    """``rarp``, ``garp`` (gratuitous ARP), ``arp``, ``na`` (IPv6 neighbour advertisement), or
    ``tcp``: the first frame of TCP after 30 ms without any."""
    mac: str
    """Of the sender, from the Ethernet header."""
    length: int
