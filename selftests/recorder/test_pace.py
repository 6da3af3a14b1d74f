"""The floor is measured once the workload is at its pace; a guest that never is, is told of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from migrate.clock import Deadline
from migrate.guest.probe import Probe
from migrate.model import Workload
from migrate.recorder import pace
from migrate.recorder.pace import measure_at_pace
from selftests.doubles.scripted_transport import Scripted

ASKED = Workload(interval_us=1000, dirty_mib=8, dirty_mib_s=4.0)
SECOND = 1_000_000_000


class Guest(Probe):
    """It has done what a script says by each look; a look takes no time, a floor one second."""

    def __init__(self, looks: Iterator[tuple[int, int]]) -> None:
        super().__init__(Scripted([]), "guest")
        self._looks = looks
        self._sent = 0

    def pages_written(self) -> int:
        self._sent, pages = next(self._looks)
        return pages

    def stream_status(self) -> object:  # type: ignore[override]
        return type("Counts", (), {"sent": self._sent})


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets a second pass."""
    now = 0

    def pass_on() -> None:
        nonlocal now
        now += SECOND

    monkeypatch.setattr(pace, "now_ns", lambda: now)
    return pass_on


def test_a_guest_at_its_pace_waits_for_nothing(second: Callable[[], None]) -> None:
    guest = Guest(iter([(0, 0), (1000, 1024)]))
    floor = measure_at_pace(guest, ASKED, second, Deadline.after(60))
    assert floor == ((0, SECOND), ())


def test_a_floor_of_a_guest_that_is_slow_at_first_is_begun_again(
    second: Callable[[], None],
) -> None:
    """So it was on a slow machine: 67 packets of 1000 in the first second."""
    guest = Guest(iter([(0, 0), (67, 102), (67, 102), (1067, 1126)]))
    floor = measure_at_pace(guest, ASKED, second, Deadline.after(60))
    assert floor.window == (SECOND, 2 * SECOND)
    assert floor.notes == (
        "the floor was measured again after 1.0 s: until then 0.4 of 4 MiB/s written, "
        "67.0 of 1000 packets/s sent",
    )


def test_a_guest_that_never_comes_to_its_pace_is_measured_at_the_deadline_with_a_note(
    second: Callable[[], None],
) -> None:
    guest = Guest(iter([(0, 0), (67, 1024)]))
    floor = measure_at_pace(guest, ASKED, second, Deadline.after(0))
    assert floor.window == (0, SECOND)
    assert floor.notes == (
        "the workload had not reached its rate after 1.0 s: 67.0 of 1000 packets/s sent",
    )


def test_without_memory_to_write_only_packets_are_counted(second: Callable[[], None]) -> None:
    guest = Guest(iter([]))
    still = ASKED.model_copy(update={"dirty_mib": 0})
    floor = measure_at_pace(guest, still, second, Deadline.after(0))
    assert floor.notes == (
        "the workload had not reached its rate after 1.0 s: 0.0 of 1000 packets/s sent",
    )


def test_of_a_floor_of_no_length_no_pace_is_told(second: Callable[[], None]) -> None:
    guest = Guest(iter([(0, 0), (0, 0)]))
    assert measure_at_pace(guest, ASKED, lambda: None, Deadline.after(0)).notes == ()
