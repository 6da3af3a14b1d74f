"""The guest's clock on the axis, its stalls, and the phases of a move."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.analysis import clock_bounds, clock_steps
from migrate.analysis.guest_clock import UNKNOWN_DELAY_NS, GuestClock
from migrate.errors import MeasurementError
from migrate.model import Stall
from migrate.model.recording import Arrivals
from selftests.doubles.wire import (
    AXIS_ZERO,
    GUEST_ZERO,
    MS,
    Trouble,
    Wire,
    cut,
    frozen,
    held,
    look,
    on_axis,
)


def stood_still(*troubles: Trouble, **wire: object) -> list[Stall]:
    stalls = look(*troubles, **wire).stalls
    assert stalls is not None
    return [stall for stall in stalls if stall.kind == "stood-still"]


def assert_near(stall: Stall, length_ms: float) -> None:
    assert abs(stall.length_ns / MS - length_ms) <= stall.error_ns / MS
    assert stall.error_ns < 2 * MS


# --- arrivals


def test_arrivals_refuse_columns_that_differ() -> None:
    with pytest.raises(ValueError, match="differ in length: seq 2, sent_ns 1"):
        Arrivals(np.arange(2), np.arange(1), np.arange(2))


def test_arrivals_refuse_a_table() -> None:
    with pytest.raises(ValueError, match="seq must have one dimension"):
        Arrivals(np.zeros((2, 2), dtype=np.int64), np.arange(2), np.arange(2))


def test_arrivals_select_rows_and_can_be_empty() -> None:
    arrivals = Arrivals(np.arange(3), np.arange(3) * 10, np.arange(3) * 100)
    assert arrivals.select(arrivals.seq > 0).sent_ns.tolist() == [10, 20]
    assert len(Arrivals.empty()) == 0


# --- the guest's clock


@pytest.mark.parametrize("length", [5, 20, 50, 300, 1000, 3000])
def test_a_stop_is_a_stall_of_its_length(length: float) -> None:
    (stall,) = stood_still(frozen(2000, length), length=8000.0)
    assert_near(stall, length)
    assert abs(stall.begin_ns - on_axis(2000)) < 2 * MS


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize(
    "around",
    [
        pytest.param((cut("egress", 2300, 700),), id="egress-back-late"),
        pytest.param((cut("ingress", 2000, 1000),), id="ingress-back-late"),
        pytest.param((cut("egress", 2300, 700), cut("ingress", 2000, 800)), id="both-back-late"),
        pytest.param((cut("egress", 1300, 700),), id="egress-gone-early"),
        pytest.param((cut("ingress", 1300, 700),), id="ingress-gone-early"),
        pytest.param((cut("egress", 1300, 700), cut("ingress", 2000, 700)), id="one-then-other"),
        pytest.param((cut("ingress", 2000, 9000),), id="ingress-never-back"),
        pytest.param((cut("egress", 2000, 9000),), id="egress-never-back"),
    ],
)
@pytest.mark.parametrize("noise", [0.15, 1.5])
def test_a_stop_keeps_its_length_and_place_whatever_the_network_does(
    around: tuple[Trouble, ...], noise: float, seed: int
) -> None:
    (stall,) = stood_still(frozen(2000, 300), *around, noise=noise, seed=seed)
    assert abs(stall.length_ns / MS - 300) <= stall.error_ns / MS
    assert abs(stall.begin_ns - on_axis(2000)) < 5 * MS


@pytest.mark.parametrize("apart", [3, 50, 300])
def test_two_stops_are_two_stalls(apart: float) -> None:
    first, second = stood_still(frozen(2000, 300), frozen(2300 + apart, 200))
    assert_near(first, 300)
    assert_near(second, 200)


@pytest.mark.parametrize("direction", ["egress", "ingress"])
@pytest.mark.parametrize("noise", [0.15, 3.0])
def test_a_queue_held_by_the_network_is_no_stall(direction: str, noise: float) -> None:
    trouble = held(direction, 2000, 500)  # type: ignore[arg-type]
    assert not stood_still(trouble, noise=noise)


@pytest.mark.parametrize("drift", [-5e-4, -2e-5, 2e-5, 5e-4])
def test_drift_makes_no_segment_and_hides_no_stop(drift: float) -> None:
    assert not stood_still(drift=drift, length=30_000.0)
    (stall,) = stood_still(frozen(15_000, 300), drift=drift, length=30_000.0)
    assert abs(stall.length_ns / MS - 300) <= 2


def test_a_clock_set_ahead_is_followed_and_is_no_standstill() -> None:
    measurement = look(Trouble("ahead", 2000, 400))
    assert measurement.stalls == ()
    assert measurement.gaps == ()
    assert measurement.clock_error_ns is not None
    assert measurement.clock_error_ns < MS


def test_a_stop_with_the_clock_going_on_is_a_jump_of_the_tick() -> None:
    measurement = look(frozen(2000, 300, clock_runs=True))
    assert measurement.stalls is not None
    (stall,) = measurement.stalls
    assert (stall.kind, stall.length_ns) == ("jumped", 300 * MS)
    assert abs(stall.begin_ns - on_axis(2000)) < 2 * MS


@settings(max_examples=30)
@given(
    st.floats(1200, 2500),
    st.floats(8, 900),
    st.floats(0.05, 2.0),
    st.floats(-2e-4, 2e-4),
    st.integers(1, 1000),
)
def test_every_stop_is_found_within_its_error(
    begin: float, length: float, noise: float, drift: float, seed: int
) -> None:
    stalls = stood_still(frozen(begin, length), noise=noise, drift=drift, seed=seed)
    assert len(stalls) == 1
    assert abs(stalls[0].length_ns / MS - length) <= stalls[0].error_ns / MS + 0.5


def test_readings_are_mapped_on_both_sides_of_a_stop() -> None:
    wire = Wire(troubles=(frozen(2000, 300),))
    seen = wire.log()
    ingress, offset = seen.ingress, seen.peer.offset_ns
    clock = GuestClock.fit(
        Arrivals(seen.egress.seq, seen.egress.sent_ns, seen.egress.received_ns + offset),
        Arrivals(ingress.seq, ingress.sent_ns + offset, ingress.received_ns),
    )
    at = np.array([0.0, 1990.0, 2310.0, 3900.0])
    readings = np.rint(wire.guest_clock(at) * MS).astype(np.int64) + GUEST_ZERO
    found = (clock.to_axis(readings) - AXIS_ZERO) / MS
    assert np.all(np.abs(found - at) <= clock.error_ns / MS)
    assert clock.error_across(on_axis(100), on_axis(200)) == clock.segments[0].error_ns
    both = sum(segment.error_ns for segment in clock.segments)
    assert clock.error_across(on_axis(1990), on_axis(2310)) == both


@pytest.mark.parametrize("dead", ["egress", "ingress"])
def test_without_any_round_trip_the_error_says_so(dead: str) -> None:
    measurement = look(cut(dead, 0, 9000))  # type: ignore[arg-type]
    assert measurement.clock_error_ns == UNKNOWN_DELAY_NS


def test_no_packet_at_all_makes_no_clock() -> None:
    with pytest.raises(MeasurementError, match="no packet arrived in either direction"):
        GuestClock.fit(Arrivals.empty(), Arrivals.empty())


def test_the_fit_looks_at_each_row_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an hour with a stop every second; each stop looked at all rows after it once."""
    looked = 0
    rows_of = clock_bounds.looks

    def counted(start: int, end: int) -> Iterator[tuple[int, int]]:
        nonlocal looked
        for begin, until in rows_of(start, end):
            looked += until - begin
            yield begin, until

    monkeypatch.setattr(clock_bounds, "looks", counted)
    monkeypatch.setattr(clock_steps, "looks", counted)
    stops = tuple(frozen(500.0 + 1000 * second, 40.0) for second in range(600))
    seen = Wire(length=600_000.0, interval=2.0, troubles=stops).log()
    clock = GuestClock.fit(seen.egress, seen.ingress)
    assert len(clock.segments) == 601
    assert looked < 12 * (len(seen.egress) + len(seen.ingress))


def test_a_clock_that_jumps_all_the_time_is_not_followed_for_ever() -> None:
    guest = np.arange(20_000, dtype=np.int64) * MS
    jumps = guest * 20
    egress = Arrivals(np.arange(20_000), guest, guest + jumps)
    ingress = Arrivals(np.arange(20_000), guest + jumps, guest)
    with pytest.raises(MeasurementError, match="it jumped more than"):
        GuestClock.fit(egress, ingress)
