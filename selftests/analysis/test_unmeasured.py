"""What the meter can't tell is neither a gap nor none: it says where, and why."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from migrate.analysis.deliveries import MOST_NUMBERS
from migrate.analysis.gaps import MOST_LISTED
from migrate.analysis.outage import (
    Measurement,
    TrafficObservation,
    measure,
)
from migrate.analysis.possible_outages import outages_of
from migrate.analysis.receipts import RECEIPTS
from migrate.errors import MeasurementError
from migrate.model import DIRECTIONS, Direction, Gap, Unmeasured
from migrate.model.recording import Arrivals, MeterLoss
from selftests.doubles.wire import (
    GUEST_ZERO,
    MS,
    Trouble,
    Wire,
    cut,
    frozen,
    held,
    look,
    of,
    on_axis,
)


def blanks(measurement: Measurement, direction: Direction) -> list[Unmeasured]:
    return [blank for blank in measurement.unmeasured if blank.direction == direction]


def possible_ms(measurement: Measurement, direction: Direction) -> float:
    every: list[Gap | Unmeasured] = [*measurement.gaps, *measurement.unmeasured]
    outages = outages_of(part for part in every if part.direction == direction)
    return max((outage.most_ms for outage in outages), default=0.0)


def with_log(seen: TrafficObservation, direction: Direction, log: Arrivals) -> TrafficObservation:
    return replace(seen, egress=log) if direction == "egress" else replace(seen, ingress=log)


# --- the meter's own losses


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_after_a_log_was_full_nothing_is_measured(direction: Direction) -> None:
    seen = Wire().log()
    log: Arrivals = getattr(seen, direction)
    seen = with_log(seen, direction, log.select(np.arange(2500)))
    lost = MeterLoss(full=True)
    measurement = measure(replace(seen, lost_by_peer=lost, lost_by_guest=lost))
    assert of(measurement, direction) == []
    (blank,) = blanks(measurement, direction)
    assert "was full" in blank.reason
    assert abs(blank.begin_ns - on_axis(2499)) < 2 * MS
    assert blank.begin_ns + blank.length_ns == on_axis(4000)
    stream = next(one for one in measurement.streams if one.direction == direction)
    assert (stream.received, stream.lost, stream.unknown) == (2500, 0, 1500)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("noticed", ["at once", "at the end", "somewhere"])
def test_what_a_socket_dropped_is_no_outage(direction: Direction, noticed: str) -> None:
    """500 packets of 300 ms after another, and an outage that the network did make."""
    seen = Wire(troubles=(cut(direction, 1500, 100),)).log()
    log: Arrivals = getattr(seen, direction)
    kept = log.select((log.seq < 2500) | (log.seq >= 2800))
    row = int(np.flatnonzero(kept.seq == 2800)[0])
    drops = {"at once": ((row, 300),), "at the end": (), "somewhere": ()}[noticed]
    dropped = 300
    if noticed == "at the end":  # the last packets: no message could tell
        kept = log.select(log.seq < 3700)
    loss = MeterLoss(drops=drops, dropped=dropped)
    seen = replace(with_log(seen, direction, kept), lost_by_peer=loss, lost_by_guest=loss)
    measurement = measure(seen)
    if noticed == "at once":
        (gap,) = of(measurement, direction)
        assert abs(gap.length_ms - 100) <= gap.error_ns / MS < 2
        (blank,) = blanks(measurement, direction)
        assert abs(blank.length_ns / MS - 301) < 2
        assert "socket" in blank.reason
    else:  # when it dropped is not known: all that is missing may be its
        assert of(measurement, direction) == []
        assert possible_ms(measurement, direction) >= 299
    if noticed == "at the end":
        assert possible_ms(measurement, direction) == math.inf, "it may go on"
    else:
        assert possible_ms(measurement, direction) < 330


def test_a_log_of_an_older_probe_is_judged_as_it_was() -> None:
    (gap,) = of(measure(Wire(troubles=(cut("egress", 2000, 100),)).log()), "egress")
    assert gap.lost == 100


# --- clocks


@pytest.mark.parametrize("length", [4, 8, 30, 60])
@pytest.mark.parametrize("delay", [5, 20, 50])
def test_a_stop_shorter_than_the_round_trip_is_found(length: float, delay: float) -> None:
    """Nothing is lost, and no bound contradicts another; all of egress looked late from then on."""
    measurement = look(frozen(2000, length), delay=delay)
    (gap,) = of(measurement, "egress")
    assert abs(gap.length_ms - length) <= gap.error_ns / MS < 2
    assert not gap.open_ended
    assert measurement.stalls is not None
    (stall,) = measurement.stalls
    assert abs(stall.length_ns / MS - length) < 1
    for gap in of(measurement, "ingress"):
        assert abs(gap.length_ms - length) <= gap.error_ns / MS < 3
    assert measurement.unmeasured == ()


def slower_egress(seen: TrafficObservation, since_ms: float, by_ms: float) -> TrafficObservation:
    late = seen.egress.sent_ns >= GUEST_ZERO + round(since_ms * MS)
    received = seen.egress.received_ns + np.where(late, round(by_ms * MS), 0)
    return replace(seen, egress=replace(seen.egress, received_ns=received))


def test_a_way_that_became_slower_at_a_stop_does_not_end_the_other() -> None:
    """45 ms more there and back: which way they are in can't be known."""
    measurement = measure(slower_egress(Wire(troubles=(frozen(2000, 300),)).log(), 2000, 45))
    assert not any(gap.open_ended for gap in measurement.gaps)
    for direction in DIRECTIONS:
        (gap,) = of(measurement, direction)
        assert gap.next_to_unmeasured
        assert gap.length_ms - gap.error_ns / MS <= 300
        (blank,) = blanks(measurement, direction)
        assert "clock" in blank.reason
        assert blank.begin_ns + blank.length_ns == on_axis(4000)
        assert possible_ms(measurement, direction) > 1900


def test_a_little_slower_at_a_stop_is_nothing() -> None:
    measurement = measure(slower_egress(Wire(troubles=(frozen(2000, 300),)).log(), 2000, 5))
    assert measurement.unmeasured == ()
    for direction in DIRECTIONS:
        (gap,) = of(measurement, direction)
        assert abs(gap.length_ms - 300) <= gap.error_ns / MS < 5


@pytest.mark.parametrize("noise", [0.15, 1.0])
def test_a_way_that_becomes_slower_without_a_stop_is_late(noise: float) -> None:
    """One segment: its packets are late, and the other way's are not."""
    measurement = measure(slower_egress(Wire(noise=noise).log(), 2000, 45))
    assert measurement.stalls == ()
    assert any(gap.open_ended for gap in of(measurement, "egress"))
    assert not any(gap.open_ended for gap in of(measurement, "ingress"))


# --- senders


def silent(seen: TrafficObservation, direction: Direction, begin: int = 2000) -> TrafficObservation:
    """For 40 ms from ``begin`` on the sender runs and sends nothing: no number is used up."""
    log: Arrivals = getattr(seen, direction)
    kept = log.select((log.seq < begin) | (log.seq >= begin + 40))
    log = replace(kept, seq=np.where(kept.seq < begin, kept.seq, kept.seq - 40))
    count = {f"sent_{direction}": len(kept.seq)}
    return replace(with_log(seen, direction, log), **count)  # type: ignore[arg-type]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_sender_that_was_late_makes_no_outage(direction: Direction) -> None:
    measurement = measure(silent(Wire().log(), direction))
    assert measurement.gaps == ()
    (blank,) = measurement.unmeasured
    assert blank.direction == direction
    assert "sent nothing" in blank.reason
    assert abs(blank.length_ns / MS - 41) < 1
    assert 40 < possible_ms(measurement, direction) < 42


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_sender_that_was_late_just_before_the_end_was_seen_to_go_on(direction: Direction) -> None:
    """Two packets are behind it, and both came."""
    (blank,) = measure(silent(Wire().log(), direction, 3958)).unmeasured
    assert on_axis(4000) - (blank.begin_ns + blank.length_ns) < 3 * MS
    assert not blank.open_ended


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_sender_that_is_late_at_the_end_may_stay_so(direction: Direction) -> None:
    (blank,) = measure(silent(Wire().log(), direction, 3960)).unmeasured
    assert blank.open_ended


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_end_is_no_later_than_its_clock_is_known(direction: Direction) -> None:
    """The last 6 ms without a packet may be no time at all if the clocks may differ by 10."""
    (blank,) = measure(silent(Wire().log(), direction, 3994)).unmeasured
    assert blank.open_ended
    assert measure(silent(Wire(peer_error=10).log(), direction, 3994)).unmeasured == ()


@pytest.mark.parametrize("clock_runs", [False, True])
def test_a_guest_that_stood_still_is_no_late_sender(clock_runs: bool) -> None:
    (gap,) = of(look(frozen(2000, 40, clock_runs=clock_runs)), "egress")
    assert abs(gap.length_ms - 40) <= gap.error_ns / MS < 4


def test_a_late_sender_while_ingress_is_held_is_no_stop_of_the_guest() -> None:
    measurement = measure(silent(Wire(troubles=(held("ingress", 1800, 400),)).log(), "egress"))
    assert of(measurement, "egress") == []
    assert len(of(measurement, "ingress")) == 1


# --- receipts


def receipts_of(seen: TrafficObservation) -> TrafficObservation:
    """What a peer knows of a guest that is gone: the newest numbers in each packet of its own."""
    came = seen.ingress.received_ns
    told = np.zeros(len(came), dtype=np.bool_)
    for at in seen.egress.sent_ns:
        newest = int(np.searchsorted(came, at, side="right"))
        told[max(0, newest - RECEIPTS) : newest] = True
    return replace(seen, ingress=seen.ingress.select(told), from_receipts=True, sent_egress=None)


def test_where_receipts_were_lost_ingress_is_not_known() -> None:
    measurement = measure(receipts_of(Wire(troubles=(cut("egress", 2000, 300),)).log()))
    (gap,) = of(measurement, "egress")
    assert abs(gap.length_ms - 300) <= gap.error_ns / MS < 2
    assert of(measurement, "ingress") == []
    blank = max(blanks(measurement, "ingress"), key=lambda blank: blank.length_ns)
    assert "receipts" in blank.reason
    assert 280 < blank.length_ns / MS < 290


def test_what_receipts_do_tell_is_measured() -> None:
    measurement = measure(receipts_of(Wire(troubles=(cut("ingress", 2000, 300),)).log()))
    (gap,) = of(measurement, "ingress")
    assert abs(gap.length_ms - 300) <= gap.error_ns / MS < 2
    assert all(blank.length_ns < 10 * MS for blank in blanks(measurement, "ingress"))


def test_what_a_stopped_guest_can_not_have_received_in_time_is_an_outage_without_receipts() -> None:
    """The queue that was flushed when it went on had more than the receipts of one packet."""
    measurement = measure(receipts_of(Wire(troubles=(frozen(2000, 300),)).log()))
    (gap,) = of(measurement, "ingress")
    assert 270 < gap.least_ns / MS <= 300
    assert possible_ms(measurement, "ingress") >= 300


def test_after_the_last_packet_of_a_guest_that_is_gone_ingress_is_not_known() -> None:
    measurement = measure(receipts_of(Wire(troubles=(cut("egress", 3000, 9000),)).log()))
    (gap,) = of(measurement, "egress")
    assert gap.open_ended
    assert of(measurement, "ingress") == []
    (blank,) = blanks(measurement, "ingress")
    assert "gone" in blank.reason
    assert blank.begin_ns + blank.length_ns == on_axis(4000)


def test_an_outage_that_a_guest_did_not_outlive_has_no_packet_behind_it() -> None:
    """The last packets to it are lost for certain, and none tells when it ended."""
    troubles = held("ingress", 2900, 300), cut("ingress", 3000, 1000), held("egress", 2500, 1000)
    measurement = measure(receipts_of(Wire(troubles=troubles).log()))
    *_, gap = of(measurement, "ingress")
    assert gap.next_to_unmeasured
    assert "gone" in blanks(measurement, "ingress")[-1].reason


# --- numbers


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_numbers_that_wrap_go_on(direction: Direction) -> None:
    seen = Wire(troubles=(cut(direction, 2000, 100),)).log()
    log: Arrivals = getattr(seen, direction)
    wrapped = replace(log, seq=(log.seq + (1 << 32) - 1500) % (1 << 32))
    count = {f"sent_{direction}": None}
    measurement = measure(replace(with_log(seen, direction, wrapped), **count))  # type: ignore[arg-type]
    (gap,) = of(measurement, direction)
    assert abs(gap.length_ms - 100) <= gap.error_ns / MS < 2
    assert gap.lost == 100


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_sender_that_began_anew_is_no_heap_of_duplicates(direction: Direction) -> None:
    seen = Wire(troubles=(cut(direction, 2000, 100),)).log()
    log: Arrivals = getattr(seen, direction)
    again = replace(log, seq=np.where(log.seq < 2100, log.seq, log.seq - 2100))
    measurement = measure(with_log(seen, direction, again))
    assert [note for note in measurement.notes if "restarted" in note]
    stream = next(one for one in measurement.streams if one.direction == direction)
    assert (stream.duplicated, stream.reordered) == (0, 0)
    assert possible_ms(measurement, direction) >= 100  # how many were lost is not known


def test_numbers_that_no_stream_reaches_are_refused_and_fill_no_memory() -> None:
    seen = Wire().log()
    wild = replace(seen.egress, seq=np.append(seen.egress.seq[:-1], MOST_NUMBERS + 7))
    with pytest.raises(MeasurementError, match="no stream of ours"):
        measure(replace(seen, egress=wild, sent_egress=None))


def test_a_count_beyond_belief_fills_no_memory() -> None:
    measurement = measure(replace(Wire().log(), sent_egress=1 << 60))
    assert of(measurement, "egress") == []
    assert measurement.streams[0].lost == (1 << 60) - 4000


def test_gaps_without_end_are_listed_up_to_a_number() -> None:
    """Every second stretch of 5 ms is cut, for half a minute."""
    seen = Wire(length=40_000.0).log()
    kept = seen.egress.select((seen.egress.seq < 1000) | (seen.egress.seq // 5 % 2 == 0))
    measurement = measure(replace(seen, egress=kept))
    assert len(measurement.gaps) == MOST_LISTED
    assert [note for note in measurement.notes if "not listed" in note]


# --- ends of the window


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_cut_over_an_end_of_the_window_counts_as_far_as_it_was_seen(direction: Direction) -> None:
    first, last = of(look(cut(direction, -50, 250), cut(direction, 3900, 500)), direction)
    assert first.begin_ns == on_axis(0)
    assert abs(first.length_ms - 200) <= first.error_ns / MS < 2
    assert last.open_ended
    assert abs(last.length_ms - 100) <= last.error_ns / MS < 2


@pytest.mark.parametrize("pause", [12.0, 40.0])
def test_a_pause_on_the_floor_makes_later_gaps_no_longer(pause: float) -> None:
    (gap,) = of(look(held("egress", 500, pause), cut("egress", 2000, 300)), "egress")[-1:]
    assert abs(gap.length_ms - 300) <= gap.error_ns / MS < 3


def test_ways_of_different_lengths_change_no_length() -> None:
    seen = slower_egress(
        Wire(troubles=(cut("egress", 2000, 100), held("ingress", 3000, 100))).log(), 0, 30
    )
    for gap in measure(seen).gaps:
        assert abs(gap.length_ms - 100) <= gap.error_ns / MS < 3


@pytest.mark.parametrize("apart", [30, 100])
def test_two_stops_in_a_row_at_a_long_round_trip(apart: float) -> None:
    measurement = look(frozen(2000, 60), Trouble("frozen", 2060 + apart, 60), delay=20.0)
    found = of(measurement, "egress")
    assert len(found) == 2
    for gap in found:
        assert abs(gap.length_ms - 60) <= gap.error_ns / MS
    assert not any(gap.open_ended for gap in measurement.gaps)
