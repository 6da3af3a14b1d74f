"""The floor: what the meter sees of a direction with nothing going on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from migrate.analysis.deliveries import SentPackets, fates
from migrate.errors import MeasurementError
from migrate.model import Floor
from migrate.model.recording import Column, Flags

LATE_NS = 20_000_000
LEAST_PACKETS = 100
"""Fewer in the floor's window make no floor."""
_MOST_USUAL = 0.95
"""The share of packets whose delay is taken for usual."""
_HARDLY_EVER = 0.003
_MOST_LOST = 0.99

Window = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DirectionFloor:
    """One direction with nothing going on: longest spacing, median delay, packets seen.

    ``jitter_ns`` is how much longer than the fastest packets nearly all take, ``lost`` the share
    of packets that were not served.
    """

    @property
    def lost_in_a_row(self) -> int:
        """So many packets in a row are lost by chance now and then, and more hardly ever."""
        if self.lost <= _HARDLY_EVER:
            return 0
        return int(math.log(_HARDLY_EVER) / math.log(min(self.lost, _MOST_LOST)))

    longest_ns: int
    delay_ns: float
    packets: int
    jitter_ns: int = 0
    lost: float = 0.0


def direction_floor(packets: SentPackets, window: Window, late_ns: int = LATE_NS) -> DirectionFloor:
    """Measure the floor of a direction in a window of send times.

    Raises MeasurementError below LEAST_PACKETS.
    """
    arrivals = packets.arrivals
    within = _within(arrivals.sent_ns, window)
    delays = (arrivals.received_ns - arrivals.sent_ns)[within]
    if len(delays) < LEAST_PACKETS:
        raise MeasurementError(
            f"measure the floor of {packets.direction}",
            said=f"{len(delays)} packets in its window, {LEAST_PACKETS} are needed",
            remedy="see whether the link was up before the move; lengthen workload.floor_s",
        )
    delay = float(np.median(delays))
    quiet = fates(packets, delay, late_ns)
    served = quiet.served & _within(quiet.sent_ns, window)
    spacing = np.diff(quiet.sent_ns[served])
    numbers = np.flatnonzero(served)
    sent = int(numbers[-1] - numbers[0]) + 1 if len(numbers) else 1
    lost = 1 - len(numbers) / sent
    longest = int(spacing.max(initial=0))
    return DirectionFloor(longest, delay, len(delays), jitter(delays), lost)


def jitter(delays_ns: Column) -> int:
    """How much longer than the fastest packets nearly all take."""
    fast, slow = np.quantile(delays_ns, (1 - _MOST_USUAL, _MOST_USUAL))
    return int(slow - fast)


def floor(egress: DirectionFloor, ingress: DirectionFloor, window: Window) -> Floor:
    """The floor of both directions, as an attempt stores it."""
    return Floor(
        egress_ms=egress.longest_ns / 1e6,
        ingress_ms=ingress.longest_ns / 1e6,
        egress_delay_ms=egress.delay_ns / 1e6,
        ingress_delay_ms=ingress.delay_ns / 1e6,
        seconds=(window[1] - window[0]) / 1e9,
        packets=egress.packets + ingress.packets,
    )


def _within(at_ns: Column, window: Window) -> Flags:
    return np.asarray((at_ns >= window[0]) & (at_ns <= window[1]), dtype=np.bool_)
