"""Two moves in one recording, each by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.analysis.hops import FOREVER_NS
from migrate.analysis.one_hop import findings_by_hop
from migrate.model import Attempt, HopFindings
from migrate.model.recording import Recording, TrafficLog
from migrate.results.reader import read_attempt
from migrate.results.recording_file import read_recording

TWO_HOPS = Path(__file__).parents[1] / "recordings" / "two-hops"


@pytest.fixture(scope="module")
def attempt() -> Attempt:
    return read_attempt(TWO_HOPS).attempt


@pytest.fixture(scope="module")
def recording() -> Recording:
    read = read_recording(TWO_HOPS)
    assert read is not None
    return read


@pytest.fixture(scope="module")
def both(recording: Recording, attempt: Attempt) -> tuple[HopFindings, ...]:
    ends_ns = (recording.hops[1].begin_ns, FOREVER_NS)
    return findings_by_hop(recording, (attempt.case, attempt.case), ends_ns)


def test_each_move_has_its_own_part_of_what_is_known_of_both(
    both: tuple[HopFindings, ...], attempt: Attempt
) -> None:
    assert tuple(hop.details for hop in both) == attempt.inside
    assert tuple(phase for hop in both for phase in hop.phases) == attempt.phases


def test_the_gaps_of_each_are_those_of_both_in_its_time(
    both: tuple[HopFindings, ...], recording: Recording, attempt: Attempt
) -> None:
    first_ns, second_ns = (hop.begin_ns for hop in recording.hops)
    assert attempt.gaps
    for hop, begin_ns, end_ns in (
        (both[0], first_ns, second_ns),
        (both[1], second_ns, FOREVER_NS),
    ):
        of_both = [
            (gap.direction, gap.begin_ns, gap.length_ns, gap.part)
            for gap in attempt.gaps
            if gap.begin_ns < end_ns and gap.begin_ns + gap.length_ns > begin_ns
        ]
        assert hop.gaps is not None
        assert [(g.direction, g.begin_ns, g.length_ns, g.part) for g in hop.gaps] == of_both
        assert {gap.direction for gap in hop.gaps if gap.part == "switchover"} == {
            "egress",
            "ingress",
        }


def test_what_libvirt_reports_is_not_added_up(
    both: tuple[HopFindings, ...], recording: Recording
) -> None:
    for hop, recorded in zip(both, recording.hops, strict=True):
        assert hop.reported.downtime_ms == recorded.result.reported.downtime_ms


def test_what_was_seen_after_a_moves_time_is_not_in_it(
    recording: Recording, attempt: Attempt
) -> None:
    cases = (attempt.case, attempt.case)
    at_once = tuple(hop.begin_ns for hop in recording.hops)
    for hop in findings_by_hop(recording, cases, at_once):
        assert hop.gaps is not None
        assert not [gap for gap in hop.gaps if gap.part == "switchover"]


def test_of_a_log_that_was_not_had_nothing_is_measured(
    recording: Recording, attempt: Attempt
) -> None:
    nothing: TrafficLog = recording.traffic.model_copy(update={"nothing_logged": True})
    cases = (attempt.case, attempt.case)
    for hop in findings_by_hop(
        recording.model_copy(update={"traffic": nothing}), cases, (FOREVER_NS, FOREVER_NS)
    ):
        assert (hop.gaps, hop.stalls, hop.explained) == (None, None, None)
