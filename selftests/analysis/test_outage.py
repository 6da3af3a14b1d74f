"""The meter against outages of known length, simulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from migrate.analysis.deliveries import Deliveries, SentPackets, fates
from migrate.analysis.floor import direction_floor
from migrate.analysis.gaps import Ruler, gaps, threshold
from migrate.analysis.outage import longest_gap, measure, total_gap_ns
from migrate.analysis.phases import gap_part, move_parts
from migrate.errors import MeasurementError
from migrate.model import Direction, Gap, Phase, PhaseName
from migrate.model.recording import Arrivals
from selftests.doubles.wire import MS, Trouble, Wire, cut, frozen, held, look, of, on_axis

LENGTHS = [20, 50, 100, 300, 1000, 3000]
WAYS: list[Direction] = ["egress", "ingress"]


def other(direction: Direction) -> Direction:
    return "ingress" if direction == "egress" else "egress"


def assert_gap(gap: Gap, begin_ms: float, length_ms: float) -> None:
    """Where it was made; longer by the flush of the simulated queue (1 µs a packet) at most."""
    assert abs(gap.length_ms - length_ms) <= 3 + length_ms / 1000
    assert abs(gap.begin_ns - on_axis(begin_ms)) <= 2.5 * MS
    assert not gap.open_ended


# --- outages of a known length


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("direction", WAYS)
def test_cut_one_way(direction: Direction, length: float) -> None:
    measurement = look(cut(direction, 2000, length), length=6000.0)
    (gap,) = of(measurement, direction)
    assert_gap(gap, 2000, length)
    assert (gap.lost, gap.late) == (length, 0)
    assert not of(measurement, other(direction))


@pytest.mark.parametrize("length", LENGTHS)
def test_cut_both_ways(length: float) -> None:
    measurement = look(cut("egress", 2000, length), cut("ingress", 2000, length), length=6000.0)
    for direction in WAYS:
        (gap,) = of(measurement, direction)
        assert_gap(gap, 2000, length)


@pytest.mark.parametrize("length", [50, 100, 300, 1000, 3000])
@pytest.mark.parametrize("direction", WAYS)
def test_held_and_flushed_is_an_outage_though_nothing_is_lost(
    direction: Direction, length: float
) -> None:
    measurement = look(held(direction, 2000, length), length=6000.0)
    (gap,) = of(measurement, direction)
    assert_gap(gap, 2000, length)
    assert gap.lost == 0
    assert abs(gap.late - length) <= 3 + length / 1000
    assert not of(measurement, other(direction))


@pytest.mark.parametrize("length", [50, 100, 300, 1000, 3000])
@pytest.mark.parametrize("clock_runs", [False, True])
def test_a_guest_that_stands_still_is_out_both_ways(length: float, clock_runs: bool) -> None:
    measurement = look(frozen(2000, length, clock_runs=clock_runs), length=6000.0)
    for direction in WAYS:
        (gap,) = of(measurement, direction)
        assert_gap(gap, 2000, length)
        assert gap.lost == 0


def test_held_for_less_than_the_limit_is_served() -> None:
    assert look(held("ingress", 2000, 15)).gaps == ()


@pytest.mark.parametrize("make", [cut, held])
@pytest.mark.parametrize("direction", WAYS)
def test_two_in_a_row_are_two(
    make: Callable[[Direction, float, float], Trouble], direction: Direction
) -> None:
    measurement = look(make(direction, 1500, 300), make(direction, 2100, 100))
    first, second = of(measurement, direction)
    assert_gap(first, 1500, 300)
    assert_gap(second, 2100, 100)


@pytest.mark.parametrize("noise", [0.15, 1.5])
def test_no_outage_no_gap(noise: float) -> None:
    measurement = look(noise=noise, floor=4000.0)
    assert measurement.gaps == ()
    assert measurement.stalls == ()
    assert measurement.notes == ()


def test_below_the_floor_nothing_is_reported() -> None:
    """The floor's window has a gap of its own of 40 ms."""
    measurement = look(cut("egress", 500, 40), cut("egress", 2000, 30), cut("egress", 3000, 60))
    assert measurement.floor is not None
    assert 39 <= measurement.floor.egress_ms <= 42
    assert measurement.floor.ingress_ms <= 2
    (gap,) = of(measurement, "egress")
    assert_gap(gap, 3000, 60)


def test_the_floor_gives_delays_and_length() -> None:
    found = look().floor
    assert found is not None
    assert abs(found.egress_delay_ms + found.ingress_delay_ms - 1.0) < 0.1
    assert found.seconds == 1.0
    assert 1990 <= found.packets <= 2002


# --- moves


def move(stop: float, resume: float) -> tuple[Phase, ...]:
    at = on_axis
    return (
        Phase(name="precopy", number=1, begin_ns=at(1200), end_ns=at(stop)),
        Phase(name="stopped", begin_ns=at(stop), end_ns=at(resume)),
        Phase(name="resumed", begin_ns=at(resume), end_ns=at(resume + 20)),
        Phase(name="announce", begin_ns=at(resume + 20), end_ns=at(resume + 1000)),
        Phase(name="settled", begin_ns=at(resume + 1000), end_ns=at(4000)),
    )


def test_a_stop_and_a_tail_are_one_gap_in_egress() -> None:
    measurement = look(frozen(2000, 300), cut("egress", 2300, 700), phases=move(2000, 2300))
    (egress,) = of(measurement, "egress")
    (ingress,) = of(measurement, "ingress")
    assert_gap(egress, 2000, 1000)
    assert (egress.lost, egress.part) == (700, "switchover")
    assert {"stopped", "resumed", "announce"} <= set(egress.phases)
    assert "settled" not in egress.phases
    assert_gap(ingress, 2000, 300)
    assert ingress.part == "switchover"


def test_gaps_before_around_and_after_the_stop_are_distinguished() -> None:
    measurement = look(
        cut("ingress", 1100, 30),
        cut("ingress", 1500, 100),
        frozen(2000, 300),
        cut("ingress", 2700, 100),
        phases=move(2000, 2300),
    )
    found = [(gap.part, gap.phases[:1]) for gap in of(measurement, "ingress")]
    assert found == [
        ("none", ()),
        ("start", ("precopy(1)",)),
        ("switchover", ("precopy(1)",)),
        ("tail", ("announce",)),
    ]


def phase(name: PhaseName, begin: float, end: float) -> Phase:
    return Phase(name=name, begin_ns=on_axis(begin), end_ns=on_axis(end))


FAILOVER = (
    phase("wait-unplug", 1100, 1400),
    phase("standby", 1400, 2800),
    phase("precopy", 1400, 2000),
    phase("stopped", 2000, 2300),
    phase("resumed", 2300, 4000),
    phase("replug", 2800, 3200),
)


def test_the_gaps_of_unplug_switchover_and_replug_are_distinguished() -> None:
    measurement = look(
        cut("ingress", 1300, 150),
        cut("ingress", 1600, 100),
        frozen(2000, 300),
        cut("ingress", 2500, 100),
        cut("ingress", 2900, 200),
        phases=FAILOVER,
    )
    found = [(gap.part, gap.phases) for gap in of(measurement, "ingress")]
    assert found == [
        ("start", ("wait-unplug", "standby", "precopy")),
        ("start", ("standby", "precopy")),
        ("switchover", ("standby", "precopy", "stopped", "resumed")),
        ("tail", ("standby", "resumed")),
        ("tail", ("resumed", "replug")),
    ]


def test_one_gap_from_the_unplug_to_after_the_stop_is_the_switchovers() -> None:
    (gap,) = of(look(cut("ingress", 1300, 1200), phases=FAILOVER), "ingress")
    assert gap.part == "switchover"
    assert gap.phases[0] == "wait-unplug"


def test_the_unplugs_gap_of_a_move_that_was_given_up_is_of_the_start() -> None:
    given_up = (phase("wait-unplug", 1100, 1200), phase("standby", 1200, 1600))
    (gap,) = of(look(cut("ingress", 1300, 150), phases=given_up), "ingress")
    assert (gap.part, gap.phases) == ("start", ("standby",))


def test_a_move_has_the_parts_that_its_phases_make() -> None:
    assert move_parts(FAILOVER) == {"start", "switchover", "tail"}
    assert move_parts(FAILOVER[:1]) == {"start"}
    assert move_parts(()) == frozenset()


def test_without_migration_a_gap_is_part_of_none() -> None:
    (gap,) = look(cut("egress", 2000, 100)).gaps
    assert (gap.part, gap.phases) == ("none", ())
    assert gap_part([]) == "none"


def test_the_error_of_a_phase_counts_for_the_overlap() -> None:
    late = Phase(name="stopped", begin_ns=on_axis(2150), end_ns=on_axis(2200))
    (gap,) = look(cut("egress", 2000, 100), phases=(late,)).gaps
    assert gap.phases == ()
    unsure = late.model_copy(update={"error_ns": 60 * MS})
    (gap,) = look(cut("egress", 2000, 100), phases=(unsure,)).gaps
    assert gap.phases == ("stopped",)


# --- errors


def test_what_is_not_known_of_the_peers_clock_moves_a_gap_and_makes_it_no_longer() -> None:
    measurement = look(cut("ingress", 2000, 30), cut("egress", 2000, 30), peer_error=50.0)
    for direction in WAYS:
        (gap,) = of(measurement, direction)
        assert gap.place_off_ns > 50 * MS
        assert gap.error_ns < 2 * MS
    assert measurement.clock_error_ns is not None
    assert measurement.clock_error_ns > 50 * MS


def test_a_gap_is_placed_no_better_than_the_guests_clock() -> None:
    (gap,) = of(look(cut("egress", 2000, 300), delay=20.0), "egress")
    assert gap.error_ns < 2 * MS < 20 * MS < gap.place_off_ns


# --- streams that are not there


@pytest.mark.parametrize("direction", WAYS)
def test_a_stream_that_never_starts_is_one_open_gap(direction: Direction) -> None:
    measurement = look(cut(direction, 0, 9000), cut(other(direction), 2000, 100))
    (gap,) = of(measurement, direction)
    assert gap.open_ended
    assert (gap.begin_ns, gap.lost) == (on_axis(0), 4000)
    assert abs(gap.length_ms - 4000) <= gap.error_ns / MS <= 1
    assert of(measurement, other(direction))
    assert measurement.floor is None
    assert f"measure the floor of {direction}: 0 packets" in measurement.notes[0]


def test_two_streams_that_never_start() -> None:
    measurement = look(cut("egress", 0, 9000), cut("ingress", 0, 9000))
    assert [gap.open_ended for gap in measurement.gaps] == [True, True]
    assert measurement.stalls is None
    assert measurement.clock_error_ns is None


@pytest.mark.parametrize("direction", WAYS)
def test_a_stream_that_starts_late_and_one_that_does_not_come_back(direction: Direction) -> None:
    measurement = look(cut(direction, 0, 1500), cut(direction, 3000, 9000))
    first, last = of(measurement, direction)
    assert (first.begin_ns, first.open_ended) == (on_axis(0), False)
    assert abs(first.length_ms - 1500) < 2
    assert last.open_ended
    assert abs(last.length_ms - 1000) < 2


def test_every_packet_answered_but_late_is_one_open_gap() -> None:
    """From 2 s on all packets take 200 ms more: none is lost, none is served."""
    seen = Wire().log()
    slow = np.where(seen.egress.seq >= 2000, 200 * MS, 0)
    egress = replace(seen.egress, received_ns=seen.egress.received_ns + slow)
    measurement = measure(replace(seen, egress=egress))
    (gap,) = of(measurement, "egress")
    assert gap.open_ended
    assert (gap.lost, gap.late) == (0, 2000)
    assert not of(measurement, "ingress")


# --- the account


def test_duplicates_and_reordering_are_counted_and_no_gap() -> None:
    measurement = look(duplicate=(100, 2000, 2001), overtake=(50, 1500))
    assert measurement.gaps == ()
    for stream in measurement.streams:
        assert (stream.sent, stream.received, stream.lost, stream.late) == (4000, 4000, 0, 0)
        assert (stream.duplicated, stream.reordered) == (3, 2)


def test_what_happens_inside_a_gap_is_counted_in_it() -> None:
    measurement = look(held("ingress", 2000, 200), duplicate=(2050, 2060, 3000), overtake=(2070,))
    (gap,) = of(measurement, "ingress")
    assert (gap.duplicated, gap.reordered) == (2, 1)


def deliveries(
    direction: Direction, arrivals: Arrivals, sent: int | None, on_time_ns: float
) -> Deliveries:
    """Of packets that usually take no time at all."""
    return fates(SentPackets.of(direction, arrivals, sent), 0, on_time_ns)


def row(*arrivals: tuple[int, float, float]) -> Arrivals:
    """Rows of number, sent at, received at, in ms."""
    table = np.array(arrivals, dtype=np.float64)
    return Arrivals(
        table[:, 0].astype(np.int64),
        (table[:, 1] * MS).astype(np.int64),
        (table[:, 2] * MS).astype(np.int64),
    )


def test_a_late_copy_does_not_undo_a_packet_served() -> None:
    delivery = deliveries("egress", row((0, 0, 1), (0, 0, 90), (1, 1, 2)), 2, 20 * MS)
    assert delivery.served.tolist() == [True, True]
    assert delivery.copies.tolist() == [1, 0]


def test_a_single_straggler_takes_nothing_with_it() -> None:
    """What was sent after it but came before it did not wait in its queue."""
    arrivals = row((0, 0, 1), (2, 2, 3), (3, 3, 4), (1, 1, 30), (4, 40, 41))
    delivery = deliveries("egress", arrivals, 5, 20 * MS)
    assert delivery.served.tolist() == [True, False, True, True, True]
    assert delivery.late.tolist() == [False, True, False, False, False]
    assert delivery.reordered.tolist() == [False, True, False, False, False]


def test_what_waited_behind_a_late_packet_is_late_too() -> None:
    arrivals = row((0, 0, 1), (1, 10, 40), (2, 30, 40.1), (3, 41, 42))
    assert deliveries("egress", arrivals, 4, 20 * MS).served.tolist() == [True, False, False, True]


def test_without_a_count_no_packet_is_assumed_lost_after_the_highest() -> None:
    assert deliveries("egress", row((0, 0, 1), (4, 4, 5)), None, 20 * MS).stream().lost == 3
    assert deliveries("egress", Arrivals.empty(), None, 20 * MS).stream().sent == 0


def test_a_number_that_was_never_sent_is_refused() -> None:
    with pytest.raises(MeasurementError, match="numbers up to 4 arrived, but only 3"):
        deliveries("egress", row((4, 4, 5)), 3, 20 * MS)


def test_too_few_packets_make_no_floor() -> None:
    with pytest.raises(MeasurementError, match="2 packets in its window, 100 are needed"):
        direction_floor(SentPackets.of("egress", row((0, 0, 1), (1, 1, 2)), None), (0, 10 * MS))


def test_without_ticks_the_stalls_are_not_measured() -> None:
    assert measure(replace(Wire().log(), jumps=None)).stalls is None


def test_receipts_say_what_they_can_not_say() -> None:
    measurement = measure(replace(Wire().log(), from_receipts=True, sent_egress=None))
    assert "rebuilt from the guest's receipts" in measurement.notes[0]
    assert measurement.floor is not None


def test_longest_and_total_are_given_by_direction() -> None:
    found = look(cut("egress", 1500, 100), cut("egress", 2500, 200), cut("ingress", 2500, 900)).gaps
    gap = longest_gap(found, "egress")
    assert gap is not None
    assert abs(gap.length_ms - 200) < 2.5
    assert abs(total_gap_ns(found, "egress") / MS - 300) < 5
    assert longest_gap(None, "egress") is None
    assert longest_gap(found[:1], "ingress") is None
    assert total_gap_ns(None, "egress") == 0


def test_the_threshold_is_two_intervals_at_least() -> None:
    assert threshold(0, MS) == 2 * MS
    assert threshold(5 * MS, MS) == 5 * MS


# --- whatever happens

TROUBLES = st.lists(
    st.builds(
        Trouble,
        st.sampled_from(["cut", "held", "frozen"]),
        st.floats(600, 1800),
        st.floats(1, 500),
        st.sampled_from(WAYS),
        st.booleans(),
    ),
    max_size=4,
)


def disjoint(troubles: list[Trouble]) -> tuple[Trouble, ...]:
    """A guest that is stopped can't be stopped again."""
    kept: list[Trouble] = []
    for trouble in sorted(troubles, key=lambda trouble: trouble.begin):
        frozen_until = max((t.end for t in kept if t.kind == "frozen"), default=0)
        if trouble.kind != "frozen" or trouble.begin > frozen_until:
            kept.append(trouble)
    return tuple(kept)


@settings(max_examples=60)
@given(TROUBLES, st.integers(1, 10_000), st.floats(0.05, 2))
def test_accounts_add_up_and_gaps_never_overlap(
    troubles: list[Trouble], seed: int, noise: float
) -> None:
    measurement = look(*disjoint(troubles), seed=seed, noise=noise, length=3000.0, floor=500.0)
    for stream in measurement.streams:
        assert stream.received + stream.lost == stream.sent
        assert stream.late <= stream.received
        found = of(measurement, stream.direction)
        for before, after in pairwise(found):
            assert before.begin_ns + before.length_ns <= after.begin_ns
        assert sum(gap.lost for gap in found) <= stream.lost
        assert sum(gap.late for gap in found) <= stream.late
        assert all(gap.most_ns > 2 * MS for gap in found)


@settings(max_examples=60)
@example([(0, 0), (28, 9)])
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60)), max_size=60))
def test_any_log_has_an_account(pairs: list[tuple[int, int]]) -> None:
    arrivals = (
        row(*((number, number, number + delay) for number, delay in pairs))
        if pairs
        else (Arrivals.empty())
    )
    delivery = deliveries("ingress", arrivals, 31, 20 * MS)
    stream = delivery.stream()
    assert stream.received + stream.lost == 31
    assert stream.received + stream.duplicated == len(pairs)
    ruler = Ruler(MS, 2 * MS, (0, 31 * MS), lambda _begin, _end: 0, lambda _at: 0)
    found, _, _ = gaps(delivery, ruler)
    assert sum(gap.lost + gap.late for gap in found) <= stream.lost + stream.late
    # A packet that is served late ends an outage after the window; surely out is none outside.
    assert sum(gap.length_ns - gap.error_ns for gap in found) <= 31 * MS
