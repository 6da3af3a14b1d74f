"""Which device of a failover pair carried: what the analysis makes of it, and the check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from migrate.analysis.findings import analyse
from migrate.checks.evaluate import evaluate
from migrate.checks.failover import carried_by
from migrate.model import Attempt, Case, Event, Verdict
from migrate.model.recording import Recording
from migrate.results.reader import read_attempt
from migrate.results.recording_file import read_recording

FOLDER = Path(__file__).parents[1] / "recordings"
S = 1_000_000_000


def recorded(name: str) -> tuple[Recording, Case]:
    recording = read_recording(FOLDER / name)
    assert recording is not None
    return recording, read_attempt(FOLDER / name).attempt.case


def with_events(recording: Recording, events: Sequence[Event]) -> Recording:
    return recording.model_copy(update={"events": tuple(events)})


def with_primaries(recording: Recording, *hosts: str) -> Recording:
    start = recording.start.model_copy(update={"primaries": hosts})
    return recording.model_copy(update={"start": start})


def judged(recording: Recording, case: Case) -> tuple[Attempt, Verdict | None]:
    attempt = evaluate(analyse(recording, case), case, 1, ("a", "b"), leftovers=(), end_ns=0)
    return attempt, carried_by(attempt)


def stays_on_standby(recording: Recording) -> Recording:
    """The primary comes back with carrier, and never carries a packet."""
    last = max(e.at_ns for e in recording.events if e.name == "carried-by")
    return with_events(
        recording,
        [e for e in recording.events if e.name != "carried-by" or e.at_ns < last],
    )


def never_comes_back(recording: Recording) -> Recording:
    """`standby` to the end, no `replug`: the primary goes, and nothing is plugged in."""
    gone = next(e.at_ns for e in recording.events if e.name == "lower-gone")
    return with_events(
        recording,
        [e for e in recording.events if e.source != "probe" or e.at_ns <= gone],
    )


def counted(recording: Recording, received: int) -> Recording:
    """Every device sends a packet a millisecond, and receives ``received`` at most."""
    begin = recording.start.begin_ns
    events = []
    for event in recording.events:
        sent = (event.at_ns - begin) // 1_000_000
        counters = {"sent": sent, "received": min(sent, received)}
        with_counters = event.model_copy(update={"data": {**event.data, **counters}})
        events.append(with_counters if event.source == "probe" else event)
    last = next(e for e in reversed(events) if e.name == "carried-by")
    end_ns = recording.traffic.end_ns
    sent = (end_ns - begin) // 1_000_000
    counters = {"sent": sent, "received": min(sent, received)}
    final = {"name": "lower-counted", "at_ns": end_ns, "data": {**last.data, **counters}}
    return with_events(recording, [*events, last.model_copy(update=final)])


def test_a_primary_that_carries_before_and_after_passes_with_its_share() -> None:
    recording, case = recorded("failover")
    attempt, verdict = judged(counted(with_primaries(recording, "a", "b"), 10**9), case)
    assert verdict is not None
    assert (verdict.result, verdict.measured, verdict.limit) == ("pass", "primary", "primary")
    assert attempt.carriers is not None
    assert [carrier.device for carrier in attempt.carriers] == ["eth2", "eth1", "eth2"]
    first, standby, last = attempt.carriers
    assert standby.is_standby and not first.is_standby and not last.is_standby
    assert first.end_ns <= standby.begin_ns < standby.end_ns <= last.begin_ns
    assert last.sent == pytest.approx((last.end_ns - last.begin_ns) / 1e6, abs=1)
    assert f"eth2 (igbvf) from {(last.begin_ns - attempt.begin_ns) / 1e9:.3f}" in verdict.evidence
    assert f"{last.sent} packets sent" in verdict.evidence


@pytest.mark.parametrize("spoil", [stays_on_standby, never_comes_back])
def test_a_guest_that_stays_on_its_standby_fails_where_the_host_has_a_primary(
    spoil: Callable[[Recording], Recording],
) -> None:
    recording, case = recorded("failover")
    _, verdict = judged(spoil(with_primaries(recording, "a", "b")), case)
    assert verdict is not None
    assert (verdict.result, verdict.measured, verdict.limit) == ("fail", "standby", "primary")
    assert "the standby eth1 carries at the end, on b, which has a primary" in verdict.evidence


def test_a_host_without_a_primary_has_the_guest_on_its_standby() -> None:
    recording, case = recorded("failover")
    _, verdict = judged(stays_on_standby(with_primaries(recording, "a")), case)
    assert verdict is not None
    assert (verdict.result, verdict.measured, verdict.limit) == ("pass", "standby", "standby")


def test_an_older_recording_does_not_know_which_hosts_have_a_primary() -> None:
    recording, case = recorded("failover")
    _, verdict = judged(recording, case)
    assert verdict is not None and verdict.result == "pass"
    _, verdict = judged(stays_on_standby(recording), case)
    assert verdict is not None and verdict.result == "unmeasured"


def test_a_primary_that_never_carried_before_the_move_fails() -> None:
    recording, case = recorded("failover")
    first = next(e.at_ns for e in recording.events if e.name == "carried-by")
    late = [e for e in recording.events if e.name != "carried-by" or e.at_ns > first]
    _, verdict = judged(with_events(with_primaries(recording, "a", "b"), late), case)
    assert verdict is not None and verdict.result == "fail"
    assert "no device carries before the move, on a" in verdict.evidence


def test_a_primary_that_sends_and_receives_nothing_fails() -> None:
    recording, case = recorded("failover")
    _, verdict = judged(counted(with_primaries(recording, "a", "b"), 0), case)
    assert verdict is not None and verdict.result == "fail"
    assert "the primary eth2 sends at the end, on b, and receives nothing" in verdict.evidence


def test_a_guest_that_could_not_be_asked_is_not_judged() -> None:
    recording, case = recorded("failover")
    silent = [e for e in recording.events if e.source != "probe"]
    _, verdict = judged(with_events(with_primaries(recording, "a", "b"), silent), case)
    assert verdict is not None and verdict.result == "unmeasured"


def test_a_log_that_overflowed_does_not_tell_who_carried() -> None:
    recording, case = recorded("failover")
    cut = recording.traffic.model_copy(update={"lowers_missed": 3})
    torn = with_primaries(recording, "a", "b").model_copy(update={"traffic": cut})
    _, verdict = judged(torn, case)
    assert verdict is not None and verdict.result == "unmeasured"


def test_a_device_without_a_known_driver_is_not_taken_for_the_primary() -> None:
    recording, case = recorded("failover")
    events = [
        event.model_copy(update={"data": {**event.data, "driver": ""}})
        if event.source == "probe" and event.data["driver"] == "igbvf"
        else event
        for event in recording.events
    ]
    _, verdict = judged(with_events(with_primaries(recording, "a", "b"), events), case)
    assert verdict is not None
    assert (verdict.result, verdict.measured) == ("unmeasured", "not known")


def test_a_guest_on_no_one_host_is_not_judged_at_the_end() -> None:
    recording, case = recorded("failover")
    hop = recording.hops[0]
    nobody = hop.result.model_copy(update={"held_by": ("a", "b")})
    torn = recording.model_copy(update={"hops": (hop.model_copy(update={"result": nobody}),)})
    _, verdict = judged(with_primaries(torn, "a", "b"), case)
    assert verdict is not None and verdict.result == "unmeasured"


@pytest.mark.parametrize("name", ["virtio", "hostdev", "vdpa"])
def test_an_interface_without_a_standby_makes_no_verdict(name: str) -> None:
    attempt, verdict = judged(*recorded(name))
    assert verdict is None
    assert attempt.carriers is None


def test_a_case_may_do_without() -> None:
    recording, case = recorded("failover")
    expect = case.expect.model_copy(update={"primary": False})
    case = case.model_copy(update={"expect": expect})
    assert judged(stays_on_standby(with_primaries(recording, "a", "b")), case)[1] is None
