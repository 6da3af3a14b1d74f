"""Clocks: deadlines that are handed down, waiting for what can only be asked for, and offsets with
their error.

The axis of time is the controller's ``CLOCK_MONOTONIC`` in nanoseconds. Another clock is mapped
on to it by an :class:`Offset`; the error of the mapping travels with every difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from migrate.errors import LabError

Answer = TypeVar("Answer")


def now_ns() -> int:
    """The axis of time, now."""
    return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock; whoever waits is handed one and hands it on."""

    at_ns: int

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """A deadline ``seconds`` from now."""
        return cls(now_ns() + round(seconds * 1e9))

    def left(self) -> float:
        """Seconds that are left, never negative."""
        return max(0.0, (self.at_ns - now_ns()) / 1e9)

    def passed(self) -> bool:
        """Whether nothing is left."""
        return now_ns() >= self.at_ns

    def later(self, seconds: float) -> Deadline:
        """This deadline, and ``seconds`` more."""
        return Deadline(self.at_ns + round(seconds * 1e9))

    def sooner(self, seconds: float) -> Deadline:
        """This deadline, or ``seconds`` from now, whichever comes first."""
        return Deadline(min(self.at_ns, Deadline.after(seconds).at_ns))


def pause(seconds: float) -> None:
    """Let time pass, where that is the purpose: e.g. traffic is to run on."""
    time.sleep(seconds)


def until(
    predicate: Callable[[], Answer],
    deadline: Deadline,
    every_s: float,
    *,
    not_yet: Callable[[LabError], bool] = lambda _error: False,
) -> Answer:
    """Ask ``predicate`` every so many seconds until its answer counts as true, and return that.

    For what no event tells. Once the deadline leaves no time to ask again, the last answer is
    returned though it does not count. An error goes on to the caller, unless ``not_yet`` says that
    it may pass and there is time to ask again.
    """
    while True:
        try:
            answer = predicate()
            if answer or deadline.left() < every_s:
                return answer
        except LabError as error:
            if deadline.left() < every_s or not not_yet(error):
                raise
        pause(every_s)


@dataclass(frozen=True, slots=True)
class Offset:
    """``axis = reading + offset_ns``, give or take ``error_ns``; ``clock`` names the other."""

    clock: str
    offset_ns: int
    error_ns: int

    def to_axis(self, reading_ns: int) -> int:
        """A reading of the other clock, on the axis."""
        return reading_ns + self.offset_ns


MONOTONIC = Offset("controller", 0, 0)


def offset_of(clock: str, read_ns: Callable[[], int], rounds: int = 8) -> Offset:
    """Measure a clock by repeated round trips: the shortest wins, half of it is the error."""
    best: Offset | None = None
    for _ in range(rounds):
        asked = now_ns()
        reading = read_ns()
        half = (now_ns() - asked + 1) // 2
        if best is None or half < best.error_ns:
            best = Offset(clock, asked + half - reading, half)
    if best is None:
        raise ValueError("rounds must be at least 1")
    return best


def wall_offset() -> Offset:
    """This machine's wall clock (``CLOCK_REALTIME``), the one that QEMU stamps its events with."""
    return offset_of("wall", time.time_ns)
