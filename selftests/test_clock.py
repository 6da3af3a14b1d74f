"""Deadlines are handed down and never negative; an offset's error is half the best round trip."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate import clock
from migrate.clock import MONOTONIC, Deadline, now_ns, offset_of, wall_offset


def test_a_deadline_ahead_has_time_left_and_one_behind_has_none() -> None:
    ahead, behind = Deadline.after(1000), Deadline.after(-1)
    assert 999 < ahead.left() <= 1000
    assert not ahead.passed()
    assert behind.left() == 0.0
    assert behind.passed()


def test_whoever_hands_a_deadline_on_can_only_shorten_it() -> None:
    deadline = Deadline.after(100)
    assert deadline.sooner(1000) == deadline
    assert deadline.sooner(1).left() <= 1


@given(
    halves=st.lists(st.integers(0, 10**9), min_size=1, max_size=8),
    truth=st.integers(-(10**15), 10**15),
    split=st.floats(0, 1),
)
def test_the_true_offset_lies_within_the_error_however_the_trip_is_split(
    halves: list[int], truth: int, split: float
) -> None:
    now = 10**12

    def read() -> int:
        nonlocal now
        trip = next(trips)
        there = round(2 * trip * split)
        now += there
        reading = now - truth
        now += 2 * trip - there
        return reading

    trips = itertools.cycle(halves)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now_ns", lambda: now)
        found = offset_of("guest", read, rounds=len(halves))
    assert abs(found.offset_ns - truth) <= found.error_ns + 1
    assert found.error_ns <= min(halves) + 1, "the shortest round trip wins"
    assert found.clock == "guest"


def test_a_reading_is_mapped_on_to_the_axis() -> None:
    assert MONOTONIC.to_axis(123) == 123
    before = now_ns()
    wall = wall_offset()
    mapped = wall.to_axis(time.time_ns())
    assert before - wall.error_ns <= mapped <= now_ns() + wall.error_ns


def test_an_offset_needs_a_round() -> None:
    with pytest.raises(ValueError, match="rounds"):
        offset_of("guest", now_ns, rounds=0)
