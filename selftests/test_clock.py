"""Deadlines are handed down and never negative; what no event tells is asked for until it is so;
an offset's error is half the best round trip."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate import clock
from migrate.clock import MONOTONIC, Deadline, now_ns, offset_of, until, wall_offset
from migrate.errors import HostError


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


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that passes only by waiting, and how it was waited."""
    waited: list[float] = []

    def pause(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(clock, "pause", pause)
    monkeypatch.setattr(clock, "now_ns", lambda: round(sum(waited) * 1e9))
    return waited


def test_what_can_only_be_asked_for_is_asked_until_it_is_so(pauses: list[float]) -> None:
    answers = iter(["", "", "it is there", "never asked"])
    assert until(lambda: next(answers), Deadline.after(60), 0.5) == "it is there"
    assert pauses == [0.5, 0.5]


def test_it_is_never_asked_past_the_deadline(pauses: list[float]) -> None:
    asked_ns: list[int] = []

    def never() -> bool:
        asked_ns.append(clock.now_ns())
        return False

    assert until(never, Deadline.after(1.2), 0.5) is False
    assert asked_ns == [0, 500_000_000, 1_000_000_000]
    assert until(lambda: "at once", Deadline.after(0), 0.5) == "at once"
    assert len(pauses) == 2


REFUSED = HostError("connect", host="a", said="refused")


@pytest.mark.parametrize(
    ("may_pass", "tries"),
    [pytest.param(True, 3, id="until-the-deadline"), pytest.param(False, 1, id="at-once")],
)
def test_an_error_goes_on_to_who_waits(pauses: list[float], may_pass: bool, tries: int) -> None:
    tried = 0

    def refuse() -> bool:
        nonlocal tried
        tried += 1
        raise REFUSED

    with pytest.raises(HostError, match="refused"):
        until(refuse, Deadline.after(1), 0.5, not_yet=lambda error: may_pass and error is REFUSED)
    assert tried == tries
    assert len(pauses) == tries - 1


def test_an_error_that_passes_is_forgotten(pauses: list[float]) -> None:
    answers: Iterator[HostError | bool] = iter([REFUSED, False, REFUSED, True])

    def answer() -> bool:
        said = next(answers)
        if isinstance(said, HostError):
            raise said
        return said

    assert until(answer, Deadline.after(60), 0.5, not_yet=lambda _error: True)
    assert len(pauses) == 3
