"""From what the probes logged to verdicts: nothing passes that the meter could not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from migrate.analysis.findings import analyse
from migrate.analysis.outage import TrafficObservation
from migrate.checks.evaluate import evaluate
from migrate.model import DIRECTIONS, Attempt, Direction, Expect, TcpCheck, Workload
from migrate.model.recording import Arrivals, Recording, TrafficLog
from migrate.report.table import run_table
from migrate.report.table_text import plain
from selftests.doubles import synthetic
from selftests.doubles.wire import MS, Wire, cut, frozen, held, on_axis

Served = Callable[[np.ndarray[Any, np.dtype[np.int64]]], np.ndarray[Any, np.dtype[np.bool_]]]
MOVE = (1500.0, 2500.0)
"""From when to when the guest is moved, in ms since the streams began."""
LIMITS = {"outage_egress_ms": 300, "outage_ingress_ms": 300, "stall_ms": 300}


def judged(
    log: TrafficObservation, expect: dict[str, Any] | None = None, **traffic: Any
) -> Attempt:
    """The attempt of which this was logged."""
    case = synthetic.case(
        expect=Expect(**{**LIMITS, **(expect or {})}),
        workload=Workload(tcp_connections=2 if "tcp" in traffic else 0, dirty_mib=0),
    )
    findings = analyse(recording(log, **traffic), case)
    return evaluate(findings, case, 1, ("a", "b"), leftovers=(), end_ns=log.window[1])


def recording(log: TrafficObservation, **more: Any) -> Recording:
    offset_ns = log.peer.offset_ns
    traffic = TrafficLog(
        egress=replace(log.egress, received_ns=log.egress.received_ns + offset_ns),
        ingress=replace(log.ingress, sent_ns=log.ingress.sent_ns + offset_ns),
        sent_egress=log.sent_egress,
        sent_ingress=log.sent_ingress or 0,
        end_ns=log.window[1],
        jumps=log.jumps,
        **more,
    )
    whole = synthetic.recording(begin_ns=on_axis(0), end_ns=log.window[1], traffic=traffic)
    begin_ns, end_ns = map(on_axis, MOVE)
    (hop,) = whole.hops
    hop = hop.model_copy(update={"begin_ns": begin_ns, "end_ns": end_ns})
    return whole.model_copy(update={"hops": (hop,)})


def result(attempt: Attempt, check: str) -> str:
    (verdict,) = [verdict for verdict in attempt.verdicts if verdict.check == check]
    return verdict.result


def losing(
    log: TrafficObservation, way: Direction, since_ms: float, lost: Served
) -> TrafficObservation:
    """The same with packets lost from a time on; ``lost`` picks them by number."""
    arrivals: Arrivals = getattr(log, way)
    since = np.quantile(arrivals.seq, since_ms / 4000)
    return changed(log, way, arrivals.select(~(lost(arrivals.seq) & (arrivals.seq >= since))))


def changed(log: TrafficObservation, way: Direction, arrivals: Arrivals) -> TrafficObservation:
    if way == "egress":
        return replace(log, egress=arrivals)
    return replace(log, ingress=arrivals)


def every_second(numbers: Any) -> Any:
    return numbers % 2 == 1


def nine_of_ten(numbers: Any) -> Any:
    return numbers % 10 != 0


def nine_of_ten_at_random(numbers: Any) -> Any:
    return np.random.default_rng(3).random(len(numbers)) < 0.9


def one_of_a_hundred_arrives(numbers: Any) -> Any:
    return numbers % 100 != 0


def three_hundred_of_four_hundred(numbers: Any) -> Any:
    return numbers % 400 < 300


def one_of_ten(numbers: Any) -> Any:
    return numbers % 10 == 0


LOSSES = [
    every_second,
    nine_of_ten,
    nine_of_ten_at_random,
    one_of_a_hundred_arrives,
    three_hundred_of_four_hundred,
]


@pytest.mark.parametrize("pause", [0.0, 12.0], ids=["quiet-floor", "pause-on-the-floor"])
@pytest.mark.parametrize("way", DIRECTIONS)
@pytest.mark.parametrize("lost", [*LOSSES, one_of_ten])
def test_packets_that_are_lost_for_ever_fail(lost: Served, way: Direction, pause: float) -> None:
    """Every second one leaves no gap, nine of ten leave short ones, or none above a noisy floor."""
    troubles = (cut(way, 500, pause),) if pause else ()
    attempt = judged(losing(Wire(troubles=troubles).log(), way, 2000, lost))
    assert result(attempt, f"loss.{way}") in {"fail", "unmeasured"}
    assert not attempt.passed
    if lost is not one_of_ten:
        assert result(attempt, f"loss.{way}") == "fail"
        assert result(attempt, "network") != "pass"


@pytest.mark.parametrize("pause", [0.0, 12.0], ids=["quiet-floor", "pause-on-the-floor"])
@pytest.mark.parametrize("lost", LOSSES)
def test_no_cell_says_in_the_floor_where_packets_are_lost(lost: Served, pause: float) -> None:
    troubles = tuple(cut(way, 500, pause) for way in DIRECTIONS if pause)
    log = Wire(troubles=troubles).log()
    attempt = judged(losing(losing(log, "egress", 2000, lost), "ingress", 2000, lost))
    text = plain(run_table(synthetic.run(), [attempt]), width=1000)
    (row,) = [line for line in text.splitlines() if "FAIL" in line]
    assert "below floor" not in row
    if lost is every_second:
        assert row.count("not measured 50% lost") == 2


def test_without_a_gap_a_half_that_is_lost_is_no_outage_within_the_limit() -> None:
    attempt = judged(losing(Wire().log(), "egress", 2000, every_second))
    (verdict,) = [v for v in attempt.verdicts if v.check == "outage.egress"]
    assert (verdict.result, "no gap, but 50% of egress" in verdict.evidence) == ("unmeasured", True)


@pytest.mark.parametrize("way", DIRECTIONS)
def test_what_is_lost_in_an_outage_is_the_outages(way: Direction) -> None:
    """A move that cuts one way for 250 ms, and holds the other, loses nothing else."""
    log = Wire(troubles=(cut(way, 1900, 250), held("ingress", 2300, 100))).log()
    attempt = judged(log)
    for check in ("loss.egress", "loss.ingress", "network", "outage.egress", "outage.ingress"):
        assert result(attempt, check) == "pass"


@pytest.mark.parametrize("way", DIRECTIONS)
def test_what_comes_late_without_a_gap_is_judged(way: Direction) -> None:
    """Every third packet takes another path, which is 60 ms longer."""
    log = Wire().log()
    arrivals: Arrivals = getattr(log, way)
    slow = (arrivals.seq % 3 == 0) & (arrivals.seq >= 2600)
    detour = arrivals.received_ns + np.where(slow, 60 * MS, 0)
    order = np.argsort(detour, kind="stable")
    late = replace(arrivals, received_ns=detour).select(order)
    attempt = judged(changed(log, way, late))
    assert result(attempt, f"loss.{way}") == "fail"


# --- an outage that may go on


def silent_at_the_end(way: Direction, closed_ms: float, open_ms: float) -> TrafficObservation:
    return Wire(troubles=(cut(way, 1900, closed_ms), cut(way, 4000 - open_ms, open_ms))).log()


@pytest.mark.parametrize("way", DIRECTIONS)
def test_a_shorter_gap_that_had_not_ended_counts(way: Direction) -> None:
    """250 ms, and 200 ms open at the end: which one was the longest is not known."""
    attempt = judged(silent_at_the_end(way, 250, 200))
    (verdict,) = [v for v in attempt.verdicts if v.check == f"outage.{way}"]
    assert (verdict.result, verdict.measured[:3]) == ("unmeasured", "≥ 2")
    assert "gap of at least 20" in verdict.evidence or "gap of at least 19" in verdict.evidence
    assert "it had not ended when the measurement did" in verdict.evidence
    assert result(attempt, "network") == "unmeasured"
    assert not attempt.passed


@pytest.mark.parametrize("way", DIRECTIONS)
def test_a_closed_gap_over_the_limit_fails_beside_an_open_one(way: Direction) -> None:
    assert result(judged(silent_at_the_end(way, 400, 200)), f"outage.{way}") == "fail"


# --- what the guest's clock shows


def test_a_stall_within_the_clocks_corridor_passes_no_limit_below_it() -> None:
    """The guest stands still for 8 ms; a round trip takes 10 ms."""
    log = Wire(delay=5.0, troubles=(frozen(2000, 8),)).log()
    assert result(judged(log, {"stall_ms": 1}), "stall") == "unmeasured"
    assert result(judged(log, {"stall_ms": 100}), "stall") == "pass"


def test_a_stall_is_not_seen_where_one_direction_is_silent_all_the_time() -> None:
    log = Wire().log()
    silent = replace(log, ingress=Arrivals.empty())
    for limit in (50, 200):
        assert result(judged(silent, {"stall_ms": limit}), "stall") == "unmeasured"


def test_a_late_tick_is_seen_from_its_own_length_on() -> None:
    """The probe logs no tick that is less than 10 ms late."""
    assert result(judged(Wire().log(), {"stall_ms": 5}), "stall") == "unmeasured"
    assert result(judged(Wire().log(), {"stall_ms": 20}), "stall") == "pass"


def test_late_ticks_that_are_no_longer_on_record_may_have_been_longer() -> None:
    attempt = judged(Wire().log(), {"stall_ms": 20}, jumps_missed=3)
    assert result(attempt, "stall") == "unmeasured"


# --- connections


def asked(at_ms: float, *waiting_ms: float, **changes: Any) -> TcpCheck:
    """Two connections, asked about at a time; the move ended at 2500 ms."""
    fields = {"waiting_ms": waiting_ms, "asked_ns": on_axis(at_ms), **changes}
    quiet = TcpCheck(opened=2, alive=2, resets=0, longest_stall_ms=max(waiting_ms, default=0.0))
    return quiet.model_copy(update=fields)


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (asked(4000, 5, 9), "pass"),
        (asked(4000, 5, 1499), "pass"),
        (asked(4000, 5, 1600), "fail"),
        (asked(4000, 5, alive=1), "fail"),
        (asked(4000, 5, 9, resets=1), "fail"),
        # A probe that tells the longest wait alone, and not when it was asked:
        (asked(4000, waiting_ms=None, asked_ns=None, longest_stall_ms=1400), "pass"),
        (asked(4000, waiting_ms=None, asked_ns=None, longest_stall_ms=1600), "unmeasured"),
        (None, "unmeasured"),
    ],
)
def test_a_connection_is_alive_that_had_a_byte_since_the_move(
    check: TcpCheck | None, expected: str
) -> None:
    assert result(judged(Wire().log(), tcp=check), "tcp") == expected
