"""Hosts' clocks are read again and again: drift is interpolated, and a step makes no number."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.analysis.findings import analyse
from migrate.analysis.host_clocks import clock_steps, readings_by_host, realign, to_axis
from migrate.checks.evaluate import evaluate
from migrate.clock import Offset, now_ns
from migrate.errors import GuestError, HostError
from migrate.lab.api import Host
from migrate.model import Attempt, Case, ClockReading, Event, Expect
from migrate.model.recording import TrafficLog
from migrate.recorder.clocks import Clocks
from migrate.results.reader import read_run
from migrate.results.writer import RunWriter
from selftests.doubles import synthetic
from selftests.doubles.wire import MS, PEER_ZERO, Wire, frozen

S = 1000 * MS


def reading(at_s: float, offset_ns: float, error_ns: int = 1000, host: str = "b") -> ClockReading:
    return ClockReading(
        host=host, at_ns=round(at_s * S), offset_ns=round(offset_ns), error_ns=error_ns
    )


# --- whether a clock stepped ---


@pytest.mark.parametrize(
    ("by_ns", "stepped"),
    [
        (0, False),
        (2000, False),  # both errors
        (2000 + 10 * 200_000, False),  # 200 ppm of ten seconds
        (2001 + 10 * 200_000, True),
        (-2001 - 10 * 200_000, True),
        (1.2 * S, True),
    ],
)
def test_a_step_is_more_than_errors_and_drift(by_ns: float, stepped: bool) -> None:
    found = clock_steps([reading(10, 7 - by_ns), reading(0, 7)])
    assert [(one.host, one.by_ns) for one in found] == ([("b", by_ns)] if stepped else [])


def test_a_clock_that_was_set_is_reported_with_how_far_and_when() -> None:
    (found,) = clock_steps(
        [reading(3, 0), reading(4, 10), reading(14, -1.2 * S), reading(20, -1.2 * S)]
    )
    told = found.describe(begin_ns=1 * S)
    assert told.startswith("the clock of b stepped by +1.2 s between 3.0 s and 13.0 s of")


def test_each_host_is_compared_with_itself() -> None:
    both = [reading(0, 0), reading(0, 5 * S, host="a"), reading(9, 5 * S, host="a"), reading(9, 0)]
    assert clock_steps(both) == ()
    assert sorted(readings_by_host(both)) == ["a", "b"]
    assert clock_steps([]) == clock_steps([reading(0, 1)]) == ()


# --- where a stamp lies ---


@given(
    ppm=st.floats(-200, 200),
    at_s=st.floats(-5, 40),
    errors=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    sides=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    zero=st.integers(-(10**15), 10**15),
)
def test_the_truth_of_a_clock_that_drifts_lies_within_the_error(
    ppm: float,
    at_s: float,
    errors: tuple[int, int],
    sides: tuple[float, float],
    zero: int,
) -> None:
    def offset_ns(at_ns: float) -> float:
        return zero + at_ns * ppm * 1e-6

    readings = [
        reading(at, offset_ns(at * S) + error * side, error)
        for at, error, side in zip((0, 30), errors, sides, strict=True)
    ]
    at_ns = round(at_s * S)
    found_ns, error_ns = to_axis(round(at_ns - offset_ns(at_ns)), readings)
    assert abs(found_ns - at_ns) <= error_ns + 1000  # a stamp's own grain is not reckoned here


def test_a_clock_that_keeps_still_has_no_error_but_its_readings() -> None:
    readings = [reading(0, 500, 70), reading(30, 500, 90)]
    assert to_axis(12 * S, readings) == (12 * S + 500, 90)
    assert to_axis(30 * S - 500, readings[1:]) == (30 * S, 90)


WALL = Offset("b.wall", 500, 70)


def event(at_ns: int, name: str, host: str = "b", **more: Any) -> Event:
    words = {"error_ns": 1070, "clock": f"{host}.wall", "source": "qemu"} | more
    return Event(at_ns=at_ns, host=host, name=name, **words)


def test_events_are_placed_anew_by_all_readings() -> None:
    readings = [reading(0, 500, 70), reading(30, 30_500, 90)]
    ours, libvirts = event(15 * S, "STOP"), event(5, "started", clock="controller", error_ns=0)
    moved, left = realign([ours, libvirts], {"b": WALL}, readings)
    assert abs(moved.at_ns - (15 * S + 15_000)) < 10
    assert moved.off_ns == 1000 + 90 + 30_000  # the grain, the readings, and what lies between
    assert left == libvirts


def test_events_of_a_clock_that_stepped_are_kept_and_their_error_is_unknown() -> None:
    readings = [reading(0, 500), reading(30, 2 * S), reading(0, 0, host="peer")]
    heard = event(7, "announce", "fabric", source="fabric", clock="controller", error_ns=0)
    found = list(realign([event(9, "RESUME"), heard], {"b": WALL}, readings))
    assert [(one.name, one.at_ns, one.error_ns) for one in found] == [
        ("RESUME", 9, None),
        ("announce", 7, 0),
    ]
    with pytest.raises(ValueError, match="when RESUME happened on b is not known"):
        _ = found[0].off_ns
    (deaf,) = realign([heard], {}, [*readings, reading(9, S, host="peer")])
    assert deaf.error_ns is None


# --- reading them ---


@dataclasses.dataclass
class Clock:
    """A host, or a peer, whose clock goes as it is told; an exception is raised in its turn."""

    name: str
    offsets: list[Offset | Exception]
    read: threading.Event = dataclasses.field(default_factory=threading.Event)

    def wall_clock(self) -> Offset:
        last = len(self.offsets) == 1
        found = self.offsets[0] if last else self.offsets.pop(0)
        if last:
            self.read.set()
        if isinstance(found, Exception):
            raise found
        return found

    def clock_offset(self, _clock: str) -> Offset:
        return self.wall_clock()


def clocks(*hosts: Clock, peer: Clock | None = None) -> Clocks:
    peer = peer or Clock("peer", [Offset("peer.mono", 0, 9)])
    return Clocks(cast("Sequence[Host]", hosts), cast("Any", peer))


def test_both_hosts_and_the_peer_are_read() -> None:
    before = now_ns()
    made = clocks(Clock("a", [Offset("a.wall", 5, 7)]), Clock("b", [Offset("b.wall", 6, 8)]))
    made.read()
    assert [(one.host, one.offset_ns, one.error_ns) for one in made.readings] == [
        ("a", 5, 7),
        ("b", 6, 8),
        ("peer", 0, 9),
    ]
    assert all(before <= one.at_ns <= now_ns() for one in made.readings)


def test_a_clock_that_cant_be_read_is_a_note() -> None:
    gone = Clock("b", [HostError("connect", host="b", said="no route")])
    made = clocks(gone, peer=Clock("peer", [GuestError("probe: clock", said="it is gone")]))
    made.read()
    assert made.readings == []
    first, second = made.notes
    assert "the clock of b was not read" in first
    assert "no route" in first
    assert "peer" in second


def test_a_long_move_is_read_meanwhile() -> None:
    host = Clock("b", [Offset("b.wall", 0, 1), Offset("b.wall", -2 * S, 1)])
    made = clocks(host)
    with made.observe(None, every_s=0.001):
        assert host.read.wait(20)
    assert len([one for one in made.readings if one.host == "b"]) >= 2
    assert [one.host for one in clock_steps(made.readings)] == ["b"]
    known = len(made.readings)
    with made.observe(None, every_s=600):
        pass  # a short one is not
    assert len(made.readings) == known


# --- what comes of it ---

STOP_MS, RESUME_MS = 2000, 2060
ASKED = {
    "reported_within_ms": 50,
    "explained_share": 0.1,
    "announce_within_ms": 100,
    "outage_egress_ms": 500,
    "outage_ingress_ms": 500,
}


def judged(readings: Sequence[ClockReading]) -> Attempt:
    """A move from a to b with a stop of 60 ms, as it is judged; the peer's clock is the axis."""
    log = Wire(troubles=(frozen(STOP_MS, RESUME_MS - STOP_MS),)).log()
    begin_ns, end_ns = PEER_ZERO, PEER_ZERO + 4 * S
    told = [
        event(begin_ns + 1100 * MS, "MIGRATION", "a", data={"status": "active"}),
        event(begin_ns + STOP_MS * MS, "STOP", "a"),
        event(begin_ns + RESUME_MS * MS, "RESUME"),
        event(begin_ns + 2061 * MS, "announce", "fabric", source="fabric", clock="controller"),
    ]
    walls = {name: Offset(f"{name}.wall", 0, 70) for name in "ab"}
    recording = synthetic.recording(
        begin_ns=begin_ns,
        end_ns=end_ns,
        traffic=TrafficLog(
            egress=log.egress,
            ingress=log.ingress,
            sent_egress=len(log.egress),
            sent_ingress=len(log.ingress),
            end_ns=end_ns,
            jumps=(),
        ),
        clocks=tuple(readings),
        events=tuple(realign(told, walls, readings)),
    )
    case = Case(id="x", expect=Expect.model_validate(ASKED))
    findings = analyse(recording, case)
    return evaluate(findings, case, 1, ("a", "b"), leftovers=(), end_ns=end_ns)


def at(at_ms: float, offset_ns: float, host: str) -> ClockReading:
    return reading((PEER_ZERO + at_ms * MS) / S, offset_ns, 70, host)


STILL = tuple(at(ms, 0, host) for host in ("a", "b", "peer") for ms in (0, 3500))


def results(attempt: Attempt) -> dict[str, tuple[str, str]]:
    return {one.check: (one.result, one.evidence) for one in attempt.verdicts}


CROSS = ("reported.agrees", "downtime.explained", "announce.sent")


def test_clocks_that_keep_still_are_on_record_and_change_nothing() -> None:
    found = judged(STILL)
    assert found.clocks == STILL
    (inside,) = found.inside
    assert inside.stop is not None
    assert inside.first_announce_ms == 1.0
    assert {results(found)[check][0] for check in CROSS} == {"pass"}
    assert {"precopy", "stopped", "resumed"} <= {phase.name for phase in found.phases}
    bare = judged(())
    assert bare.inside == found.inside
    assert bare.gaps == found.gaps


@pytest.mark.parametrize("host", ["a", "b"])
def test_numbers_that_need_a_clock_that_stepped_are_not_measured(host: str) -> None:
    found = judged(
        [one for one in STILL if one.host != host] + [at(0, 0, host), at(3500, -S, host)]
    )
    (inside,) = found.inside
    assert (inside.stop, inside.devices, found.explained) == (None, None, None)
    assert (inside.announced, inside.first_announce_ms, inside.first_egress_ms) == (None,) * 3
    why = f"the clock of {host} stepped by +1 s between 0.0 s and 3.5 s"
    assert any(why in reason for reason in inside.unseen)
    assert found.phases == ()
    judgement = results(found)
    for check in CROSS:
        assert judgement[check][0] == "unmeasured"
        assert why in judgement[check][1]
    # What the network saw needs neither host's clock.
    assert judgement["outage.egress"][0] == "pass"
    assert "the phase is not known" in judgement["outage.egress"][1]
    assert not found.passed


def test_without_the_peers_clock_there_are_no_gaps() -> None:
    found = judged([*STILL[:4], at(0, 0, "peer"), at(3500, S, "peer")])
    assert (found.gaps, found.explained) == (None, None)
    judgement = results(found)
    for check in (*CROSS, "outage.egress", "outage.ingress", "measured"):
        assert judgement[check][0] == "unmeasured"


def test_it_is_read_back_with_its_clocks(tmp_path: Any) -> None:
    found = judged(STILL).model_copy(update={"case": synthetic.case()})
    writer = RunWriter.create(tmp_path, synthetic.run())
    writer.write_attempt(found, [event(5, "STOP", error_ns=None)], [], {}, {})
    (again,) = read_run(writer.folder).attempts
    assert again.attempt.clocks == STILL
    assert again.events()[0].error_ns is None
