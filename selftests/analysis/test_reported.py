"""What is reported of a move: of a VF's state what was sent before the stop, and after it."""

from __future__ import annotations

import pytest

from migrate.analysis.reported import with_vfio
from migrate.model import Event, ReportedFigures, Sample


def at(at_ns: int, size: int | None) -> Sample:
    return Sample(at_ns=at_ns, host="a", vfio_bytes=size)


STOP = Event(at_ns=30, source="qemu", host="a", name="STOP")
EARLIER = Event(at_ns=5, source="qemu", host="a", name="STOP")
ELSEWHERE = Event(at_ns=15, source="qemu", host="b", name="STOP")


def test_a_vfs_state_is_reported_in_two_parts() -> None:
    samples = [at(10, 100), at(20, 700), at(40, 900), at(50, None)]
    found = with_vfio(ReportedFigures(total_ms=1), samples, (EARLIER, ELSEWHERE, STOP))
    assert (found.vfio_precopy_bytes, found.vfio_stopcopy_bytes) == (700, 200)
    assert found.total_ms == 1


def test_a_state_that_was_sent_after_the_stop_only_has_no_first_part() -> None:
    found = with_vfio(ReportedFigures(), [at(10, 0), at(40, 900)], (STOP,))
    assert (found.vfio_precopy_bytes, found.vfio_stopcopy_bytes) == (0, 900)


@pytest.mark.parametrize("size", [None, 0])
def test_a_guest_without_a_vf_reports_no_vfio_bytes(size: int | None) -> None:
    assert with_vfio(ReportedFigures(), [at(10, size)], (STOP,)) == ReportedFigures()


@pytest.mark.parametrize("stops", [(), (EARLIER,), (ELSEWHERE,)])
def test_without_its_stop_nobody_knows_what_was_sent_before_it(stops: tuple[Event, ...]) -> None:
    samples = [at(10, 100), at(20, 700), at(40, 900)]
    assert with_vfio(ReportedFigures(), samples, stops) == ReportedFigures()
