"""What others would have said of the same outage: losses × interval, and bins of one second.

Ping really runs, in the fabric, at the same time as the meter. For iperf3 and irtt a server would
have to run in the guest, which has none; what they print is worked out from the very arrivals that
the meter judges, so that the tools differ by their arithmetic and by nothing else.
"""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from migrate.clock import wall_offset
from migrate.errors import HostError
from migrate.lab.local.lab import LocalLab
from migrate.model.recording import Column

REPLY = re.compile(r"^\[(?P<s>\d+)\.(?P<us>\d{6})\].* icmp_seq=(?P<seq>\d+) ", re.MULTILINE)
"""A line of `ping -D`: wall clock when the reply came, and its number."""
BIN_NS = 10**9

Window = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Numbered:
    """Packets that came through, numbered by the sender without holes; ``at_ns`` on the axis."""

    seq: Column
    at_ns: Column

    def lost(self, window: Window) -> int:
        """Numbers that are missing between two that came, where these two reach into the window."""
        order = np.unique(self.seq, return_index=True)[1]
        seq, at = self.seq[order], self.at_ns[order]
        holes = np.diff(seq) - 1
        inside = (np.minimum(at[:-1], at[1:]) <= window[1]) & (
            np.maximum(at[:-1], at[1:]) >= window[0]
        )
        return int(holes[inside].sum())


def empty_bins(received_ns: Column, session: Window, window: Window) -> int:
    """Whole seconds, counted from the session's begin, in which nothing came: as iperf3 prints."""
    count = (session[1] - session[0]) // BIN_NS
    which = (received_ns - session[0]) // BIN_NS
    filled = np.bincount(which[(which >= 0) & (which < count)], minlength=int(count))
    begins = session[0] + np.arange(count) * BIN_NS
    inside = (begins <= window[1]) & (begins + BIN_NS >= window[0])
    return int(((filled == 0) & inside).sum())


@dataclass(slots=True)
class Ping:
    """A ping that runs; what it said is there when its block has ended."""

    interval_ms: int
    replies: Numbered = field(
        default_factory=lambda: Numbered(np.empty(0, np.int64), np.empty(0, np.int64))
    )

    def outage_ms(self, window: Window) -> float:
        """Losses × interval. A reply that came late is no loss to it."""
        return float(self.replies.lost(window) * self.interval_ms)


@contextmanager
def pinging(lab: LocalLab, interval_ms: int) -> Iterator[Ping]:
    """Ping the guest from beside the peer while the block runs."""
    ping = Ping(interval_ms)
    argv = ["ping", "-n", "-D", "-i", f"{interval_ms / 1e3:g}", lab.guest_address]
    with tempfile.TemporaryFile() as output:
        wall = wall_offset()
        with subprocess.Popen(lab.beside_peer(argv), stdout=output) as process:
            try:
                yield ping
            finally:
                process.send_signal(signal.SIGINT)
        output.seek(0)
        replies = [
            (int(line["seq"]), wall.to_axis(int(line["s"]) * 10**9 + int(line["us"]) * 1000))
            for line in REPLY.finditer(output.read().decode())
        ]
    if not replies:
        raise HostError(
            "ping the guest", said="no reply at all", remedy="apt-get install iputils-ping"
        )
    numbers = np.array(replies, dtype=np.int64)
    ping.replies = Numbered(numbers[:, 0], numbers[:, 1])
