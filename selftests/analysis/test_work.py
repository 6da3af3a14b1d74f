"""What the workload did, by the guest's own count: laid on the axis, and told if it fell short."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from migrate.analysis.traffic import arrivals_on_axis
from migrate.analysis.work import as_done, shortfalls, work_done
from migrate.model import Case, WorkDone, Workload, WorkSample
from migrate.model.recording import Arrivals, Recording
from selftests.doubles import synthetic

S = 1_000_000_000
MS = S // 1000
AHEAD = 77 * S
"""Of the guest's clock, to the axis."""


def streams(seconds: int) -> tuple[Arrivals, Arrivals]:
    """A packet every 5 ms each way, half a millisecond under way; the guest's clock is ahead."""
    sent = np.arange(0, seconds * S, 5 * MS, dtype=np.int64)
    seq = np.arange(len(sent), dtype=np.int64)
    later = sent + MS // 2
    return Arrivals(seq, sent + AHEAD, later), Arrivals(seq, sent, later + AHEAD)


def recorded(pages_a_second: Sequence[int] | None) -> Recording:
    """A floor of a second and a move of seven, with what the guest wrote in each second."""
    egress, ingress = streams(10)
    recording = synthetic.recording(end_ns=9 * S)
    work = None
    if pages_a_second is not None:
        total = np.cumsum([0, *pages_a_second]).tolist()
        work = tuple(
            WorkSample(at_ns=AHEAD + n * S, pages=pages, packets=200 * n, tcp_bytes=6400 * n)
            for n, pages in enumerate(total)
        )
    traffic = recording.traffic.model_copy(
        update={"egress": egress, "ingress": ingress, "work": work, "end_ns": 9 * S}
    )
    return recording.model_copy(update={"traffic": traffic})


def done(recording: Recording) -> tuple[WorkDone, ...]:
    found = work_done(recording, arrivals_on_axis(recording.traffic))
    assert found is not None
    return found


def test_each_stretch_has_what_was_done_in_it() -> None:
    floor, move, after = done(recorded([256, *[1024] * 7, 512]))
    assert (floor.window, move.window, move.hop, after.window) == ("floor", "move", 1, "after")
    assert floor.dirty_mib_s == pytest.approx(1.0, abs=0.05)
    assert move.dirty_mib_s == pytest.approx(4.0, abs=0.05)
    assert after.dirty_mib_s == pytest.approx(2.0, abs=0.05)
    assert move.packets_s == pytest.approx(200, abs=1)
    assert move.tcp_bytes_s == pytest.approx(6400, abs=10)


def test_a_guest_that_stood_still_wrote_less_in_that_time() -> None:
    _, move, _ = done(recorded([1024, 1024, 0, 0, 0, 0, 0, 0, 1024]))
    assert move.dirty_mib_s == pytest.approx(4.0 / 7, abs=0.05)


def test_what_the_guest_did_not_tell_is_not_measured() -> None:
    assert work_done(recorded(None), {}) is None
    assert work_done(recorded([1024] * 9), {}) is None


def work(dirty_mib_s: float = 8.0, packets_s: float = 200.0, tcp: float = 6400.0) -> WorkDone:
    rates = {"dirty_mib_s": dirty_mib_s, "packets_s": packets_s, "tcp_bytes_s": tcp}
    return WorkDone.model_validate({"window": "floor", "seconds": 1.0, **rates})


ASKED = Workload(dirty_mib=16, dirty_mib_s=8, interval_us=5000)


def test_a_workload_that_falls_short_says_so() -> None:
    (told,) = shortfalls([work(1.1, packets_s=90)], ASKED, loops=False)
    assert "1.1 of 8 MiB/s written" in told
    assert "90.0 of 200 packets/s sent" in told
    assert "TCP" not in told


def test_a_forecast_goes_by_what_the_guest_reached() -> None:
    case = Case(id="x", workload=ASKED)
    assert as_done(case, [work(1.1)]).workload == ASKED.model_copy(update={"dirty_mib_s": 1.1})
    assert as_done(case, None) == case


@pytest.mark.parametrize(
    ("one", "asked", "loops"),
    [
        (work(), ASKED, False),
        (work(6.5, 165), ASKED, False),
        (work(0.0), ASKED.model_copy(update={"dirty_mib": 0}), False),
        (work(tcp=0.0), ASKED, True),
        (work(tcp=0.0), ASKED.model_copy(update={"tcp_connections": 0}), False),
        (work(0.0).model_copy(update={"window": "move", "hop": 1}), ASKED, False),
    ],
)
def test_one_that_does_what_it_was_asked_does_not(
    one: WorkDone, asked: Workload, loops: bool
) -> None:
    """While a guest is moved it does less by the nature of it: that is shown, and no remark."""
    assert list(shortfalls([one], asked, loops=loops)) == []
