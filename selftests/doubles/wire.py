"""A guest, a peer and the wire between them, simulated: what both of them would have logged.

All times are milliseconds on the axis from the begin of the streams; the logs are in nanoseconds.
The guest's clock, the peer's and the axis all have different zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from migrate.analysis.outage import Measurement, TrafficObservation, measure
from migrate.clock import Offset
from migrate.model import Direction, Gap, Phase
from migrate.model.recording import Arrivals, Sends

MS = 1_000_000
AXIS_ZERO = 5_000_000 * MS
GUEST_ZERO = 77_000 * MS
PEER_ZERO = 3_000_000_000 * MS

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Trouble:
    """From ``begin`` for ``length`` ms.

    frozen: the guest does not run; its clock stands still, or goes on if ``clock_runs``.
    ahead: the guest's clock is set forward by ``length`` at ``begin``; nothing else happens.
    cut: what is sent is lost. held: what is on the wire stays there and comes in one flush.
    """

    kind: str
    begin: float
    length: float
    direction: Direction = "egress"
    clock_runs: bool = False

    @property
    def end(self) -> float:
        return self.begin + self.length


def frozen(begin: float, length: float, *, clock_runs: bool = False) -> Trouble:
    return Trouble("frozen", begin, length, clock_runs=clock_runs)


def cut(direction: Direction, begin: float, length: float) -> Trouble:
    return Trouble("cut", begin, length, direction)


def held(direction: Direction, begin: float, length: float) -> Trouble:
    return Trouble("held", begin, length, direction)


@dataclass(frozen=True)
class Wire:
    """What happens; ``log`` says what is seen of it."""

    length: float = 4000.0
    interval: float = 1.0
    troubles: tuple[Trouble, ...] = ()
    drift: float = 0.0
    delay: float = 0.4
    noise: float = 0.15
    """Mean of what is added to the delay one way, ms; one packet in 300 gets 10 times as much."""
    floor: float = 1000.0
    duplicate: tuple[int, ...] = ()
    """Numbers that arrive twice, each way."""
    overtake: tuple[int, ...] = ()
    """Numbers that arrive just behind the next one, each way."""
    peer_error: float = 0.0
    loss: float = 0.0
    """The share of packets that is lost each way, one by one."""
    lapses: float = 0.0
    """Of the senders, a second: one sends nothing for up to 20 ms, and skips what was due then."""
    sends: bool = False
    """Whether the senders' own records of what they sent are at hand."""
    phases: tuple[Phase, ...] = ()
    seed: int = 1

    # --- the guest's clock

    def _stops(self, *, clock: bool) -> list[Trouble]:
        """Where the guest does not run; with ``clock`` only those that its clock misses, too."""
        stops = [t for t in self.troubles if t.kind == "frozen" and not (clock and t.clock_runs)]
        return sorted(stops, key=lambda stop: stop.begin)

    def guest_clock(self, at: Times) -> Times:
        """The guest's clock, ms since the begin."""
        missed = np.zeros_like(at)
        for stop in self._stops(clock=True):
            missed += np.clip(at - stop.begin, 0, stop.length)
        gained = np.zeros_like(at)
        for trouble in self.troubles:
            if trouble.kind == "ahead":
                gained += np.where(at >= trouble.begin, trouble.length, 0.0)
        return np.asarray((at - missed) * (1 + self.drift) + gained)

    def _awake(self, at: Times) -> Times:
        """When the guest first runs, at or after a time."""
        at = at.copy()
        for stop in self._stops(clock=False):
            inside = (at >= stop.begin) & (at < stop.end)
            at[inside] = stop.end + (at[inside] - stop.begin) * 1e-3
        return at

    # --- the two streams

    def _wire(self, direction: Direction, sent: Times, rng: np.random.Generator) -> Times:
        """When each arrives; infinite for what is lost. In order, but for what overtakes."""
        noise = rng.exponential(self.noise, len(sent))
        noise[rng.random(len(sent)) < 1 / 300] *= 10
        arrived = sent + self.delay + noise
        for trouble in self.troubles:
            if trouble.kind == "held" and trouble.direction == direction:
                inside = (arrived >= trouble.begin) & (arrived < trouble.end)
                arrived[inside] = trouble.end + (arrived[inside] - trouble.begin) * 1e-3
        lost = rng.random(len(sent)) < self.loss
        for trouble in self.troubles:
            if trouble.kind == "cut" and trouble.direction == direction:
                lost |= (sent >= trouble.begin) & (sent < trouble.end)
        if direction == "ingress":
            arrived = self._awake(arrived)
        arrived = np.maximum.accumulate(arrived)
        for number in self.overtake:
            arrived[number] = arrived[number + 1] + 0.01
        arrived[lost] = np.inf
        return arrived

    def _sent_by_guest(self) -> Times:
        slots = np.arange(0.0, self.length, self.interval)
        for stop in self._stops(clock=False):
            if stop.clock_runs:
                slots = slots[(slots < stop.begin) | (slots >= stop.end)]
            else:
                slots = np.where(slots >= stop.begin, slots + stop.length, slots)
        return np.asarray(slots[slots < self.length])

    def _late(self, slots: Times, rng: np.random.Generator, *, guest: bool) -> Times:
        """What is sent, by a sender that has lapses."""
        if not self.lapses:
            return slots
        slots = slots + rng.exponential(0.03 * self.interval, len(slots))
        for begin in rng.uniform(0, self.length, rng.poisson(self.lapses * self.length / 1000)):
            end = begin + rng.uniform(2, 20)
            inside = np.flatnonzero((slots >= begin) & (slots < end))
            if len(inside):
                slots[inside[-1]] = end
                slots = np.delete(slots, inside[:-1])
        return np.maximum.accumulate(self._awake(slots) if guest else slots)

    def log(self) -> TrafficObservation:
        """What the two logs hold."""
        rng = np.random.default_rng(self.seed)
        out = self._late(self._sent_by_guest(), rng, guest=True)
        back = self._late(np.arange(0.0, self.length, self.interval), rng, guest=False)
        at_peer = self._wire("egress", out, rng)
        at_guest = self._wire("ingress", back, rng)
        egress = self._rows(at_peer, _ns(self.guest_clock(out), GUEST_ZERO), None)
        ingress = self._rows(at_guest, _ns(back, PEER_ZERO), GUEST_ZERO)
        return TrafficObservation(
            egress=egress,
            ingress=ingress,
            peer=Offset("peer", AXIS_ZERO - PEER_ZERO, round(self.peer_error * MS)),
            sent_egress=len(out),
            sent_ingress=len(back),
            interval_ns=round(self.interval * MS),
            floor_window=(on_axis(0), on_axis(self.floor)),
            window=(on_axis(0), on_axis(self.length)),
            phases=self.phases,
            unreceived_egress=self._unreceived(at_peer, self.guest_clock(out), GUEST_ZERO),
            unreceived_ingress=self._unreceived(at_guest, back, PEER_ZERO),
            jumps=tuple(
                (
                    int(_ns(self.guest_clock(np.array([t.begin])), GUEST_ZERO)[0]),
                    round(t.length * MS),
                )
                for t in self._stops(clock=False)
                if t.clock_runs
            ),
        )

    def _unreceived(self, arrived: Times, sent: Times, zero: int) -> Sends | None:
        lost = np.flatnonzero(~np.isfinite(arrived))
        return Sends(lost, _ns(sent[lost], zero)) if self.sends else None

    def _rows(self, arrived: Times, sent_ns: NDArray[np.int64], guest_zero: int | None) -> Arrivals:
        """The log in the order of arrival; stamped by the guest if it has a zero, else the peer."""
        copies = [number for number in self.duplicate if np.isfinite(arrived[number])]
        numbers = np.concatenate([np.flatnonzero(np.isfinite(arrived)), copies]).astype(np.int64)
        at = arrived[numbers]
        at[len(at) - len(copies) :] += 0.05
        order = np.argsort(at, kind="stable")
        numbers, at = numbers[order], at[order]
        stamp = _ns(at, PEER_ZERO) if guest_zero is None else _ns(self.guest_clock(at), guest_zero)
        return Arrivals(numbers, sent_ns[numbers], stamp)


def _ns(ms: Times, zero: int) -> NDArray[np.int64]:
    return np.rint(ms * MS).astype(np.int64) + zero


def on_axis(ms: float) -> int:
    """A time of the simulation on the axis, ns."""
    return AXIS_ZERO + round(ms * MS)


def look(*troubles: Trouble, **wire: object) -> Measurement:
    """Simulate and measure."""
    return measure(replace(Wire(troubles=troubles), **wire).log())  # type: ignore[arg-type]


def of(measurement: Measurement, direction: Direction) -> list[Gap]:
    """A direction's gaps."""
    return [gap for gap in measurement.gaps if gap.direction == direction]
