"""What no outage accounts for, counted window by window and held against the floor."""

from __future__ import annotations

import numpy as np
import pytest

from migrate.analysis.deliveries import Deliveries
from migrate.analysis.excess_loss import excesses, heavy_loss, joined, unserved_after
from migrate.analysis.loss import NamedWindow, losses
from migrate.model import Gap, Loss, LossWindow, Part

MS = 1_000_000
WINDOWS = (
    NamedWindow("floor", 0, (0, 1000 * MS)),
    NamedWindow("move", 1, (1000 * MS, 2000 * MS)),
    NamedWindow("after", 1, (2000 * MS, 3000 * MS)),
)


def sent(lost: list[range], late: list[range], unknown: list[range] | None = None) -> Deliveries:
    """A packet a millisecond for three seconds."""
    arrived, served = np.ones((2, 3000), dtype=np.bool_)
    doubtful = np.zeros(3000, dtype=np.bool_)
    for numbers in (*lost, *(unknown or [])):
        arrived[numbers] = served[numbers] = False
    for numbers in late:
        served[numbers] = False
    for numbers in unknown or []:
        doubtful[numbers] = True
    at, nothing = np.arange(3000, dtype=np.int64) * MS, np.zeros(3000, dtype=np.int64)
    flags = nothing.astype(np.bool_)
    return Deliveries("egress", at, at, at, arrived, arrived, served, doubtful, flags, nothing)


def gap(numbers: range, part: Part = "none") -> Gap:
    begin_ns = (numbers.start - 1) * MS
    length_ns = (numbers.stop - numbers.start + 1) * MS
    return Gap(direction="egress", begin_ns=begin_ns, length_ns=length_ns, error_ns=MS, part=part)


def counted(
    gaps: list[Gap], lost: list[range], late: list[range] | None = None
) -> dict[str, tuple[int, int, int, int]]:
    found = losses(sent(lost, late or []), gaps, WINDOWS, MS)
    return {loss.window: (loss.sent, loss.lost, loss.late, loss.late_in_gaps) for loss in found}


def test_windows_count_what_was_sent_in_them() -> None:
    found = counted([], [range(10, 20, 2), range(1500, 1501)], [range(2500, 2510, 5)])
    assert found == {"floor": (1000, 5, 0, 0), "move": (1000, 1, 0, 0), "after": (1000, 0, 2, 0)}


def test_what_is_lost_in_an_outage_is_the_outages() -> None:
    out = range(1400, 1600)
    assert counted([gap(out)], [out])["move"] == (800, 0, 0, 0)
    assert counted([gap(out)], [], [out])["move"] == (800, 0, 0, 0)


def test_two_outages_in_a_row_are_outages() -> None:
    """Each has service on its other side."""
    first, second = range(1400, 1600), range(1605, 1700)
    assert counted([gap(first), gap(second)], [first, second])["move"] == (705, 0, 0, 0)


def test_gaps_with_little_served_between_are_loss() -> None:
    """All but the first and the last: these have service beside them."""
    lost = [range(n + 1, n + 50) for n in range(1000, 2000, 50)]
    found = counted([gap(numbers) for numbers in lost], lost)["move"]
    assert found == (1000 - 2 * 49, 18 * 49, 0, 0)


def test_what_is_late_in_such_gaps_is_counted_apart() -> None:
    late = [range(n + 1, n + 50) for n in range(1000, 2000, 50)]
    found = counted([gap(numbers) for numbers in late], [], late)["move"]
    assert found == (1000 - 2 * 49, 0, 0, 18 * 49)


def test_the_longest_gap_of_a_part_of_the_move_is_an_outage() -> None:
    """Also where the stream only sputters around it."""
    around = [range(n + 1, n + 50) for n in (1000, 1050, 1300, 1350)]
    stop = range(1101, 1300)
    gaps = [gap(n) for n in around[:2]] + [gap(stop, "switchover")] + [gap(n) for n in around[2:]]
    assert counted(gaps, [*around, stop])["move"] == (1000 - 199 - 2 * 49, 2 * 49, 0, 0)


def test_each_move_has_a_longest_gap_of_its_own() -> None:
    """A longer one of another move takes it from none: what is lost in it is the outage's."""
    stops = [range(1301, 1500), range(2301, 2600)]
    gaps, lost = [], []
    for stop in stops:
        beside = [
            range(stop.start - 100, stop.start - 51),
            range(stop.start - 50, stop.start - 1),
            range(stop.stop + 1, stop.stop + 50),
            range(stop.stop + 51, stop.stop + 100),
        ]
        gaps += [*map(gap, beside[:2]), gap(stop, "tail"), *map(gap, beside[2:])]
        lost += [*beside, stop]
    moves = (*WINDOWS[:2], NamedWindow("move", 2, (2000 * MS, 3000 * MS)))
    first, second = losses(sent(lost, []), gaps, moves, MS)[1:]
    assert (first.sent, first.lost) == (1000 - 199 - 2 * 49, 2 * 49)
    assert (second.sent, second.lost) == (1000 - 299 - 2 * 49, 2 * 49)


def test_a_switchover_of_which_one_packet_was_served_is_an_outage_all_the_same() -> None:
    """As one was that came in just before the guest stopped."""
    before, first, second = range(1050, 1099), range(1100, 1144), range(1145, 1200)
    gaps = [gap(before), gap(first, "switchover"), gap(second, "switchover")]
    assert counted(gaps, [before, first, second])["move"] == (1000 - 44 - 55 - 49, 0, 0, 0)


def test_a_stream_of_which_nothing_arrived_has_nothing_to_count() -> None:
    assert counted([], [range(3000)])["after"] == (0, 0, 0, 0)


def test_what_the_meter_lost_is_neither_sent_nor_lost() -> None:
    found = losses(sent([range(2500, 2510)], [], [range(2100, 2400)]), [], WINDOWS, MS)
    assert [(loss.sent, loss.lost) for loss in found] == [(1000, 0), (1000, 0), (700, 10)]


# --- against the floor


def loss(window: LossWindow, lost: int, of: int, *, late_in_gaps: int = 0) -> Loss:
    return Loss(
        direction="egress",
        window=window,
        hop=0,
        begin_ns=0,
        end_ns=1,
        sent=of,
        lost=lost,
        late=0,
        late_in_gaps=late_in_gaps,
    )


@pytest.mark.parametrize(
    ("floor", "after", "heavy"),
    [
        ((0, 1000), (500, 1000), 0.5),
        ((0, 1000), (100, 1000), 0.1),
        ((0, 1000), (30, 1000), None),
        ((500, 1000), (510, 1000), None),
        ((0, 1000), (2, 10), None),
    ],
)
def test_a_loss_is_heavy_by_what_it_is_more_than_on_the_floor(
    floor: tuple[int, int], after: tuple[int, int], heavy: float | None
) -> None:
    assert heavy_loss((loss("floor", *floor), loss("after", *after)), "egress") == heavy
    assert heavy_loss((loss("floor", *floor), loss("after", *after)), "ingress") is None


def test_without_a_floor_nothing_is_more_than_on_it() -> None:
    assert excesses((loss("after", 500, 1000),), "egress") == ()
    assert heavy_loss(None, "egress") is None


def test_few_packets_are_judged_with_the_window_after_them() -> None:
    together = joined(
        (loss("floor", 0, 50), loss("move", 5, 20), loss("move", 0, 1000), loss("after", 0, 30)),
        "egress",
    )
    assert [(part.window, part.lost, part.sent) for part in together] == [
        ("floor", 0, 50),
        ("move", 5, 1020),
        ("after", 0, 30),
    ]


def test_what_came_late_after_the_move_was_not_served() -> None:
    found = unserved_after((loss("after", 100, 1000, late_in_gaps=500),), "egress")
    assert found is not None
    assert found.value == 0.6
    assert unserved_after((), "egress") is None
