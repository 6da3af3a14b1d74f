"""Every check fires each way: pass, fail, unmeasured; and none where it was not asked for."""

from __future__ import annotations

from typing import Any

import pytest

from migrate.checks.registry import CHECKS, run_checks
from migrate.model import (
    Attempt,
    Expect,
    MemoryCheck,
    Problem,
    QemuEnd,
    ReportedFigures,
    Stall,
    TcpCheck,
    Verdict,
)
from selftests.checks.samples import ALL_LIMITS, NIC, attempt, gap, loss, stall


def verdict(name: str, found: Attempt) -> Verdict:
    (one,) = [verdict for verdict in run_checks(found) if verdict.check == name]
    return one


def asked(found: Attempt) -> set[str]:
    return {verdict.check for verdict in run_checks(found)}


def test_a_good_attempt_passes_every_check() -> None:
    verdicts = run_checks(attempt(expect=ALL_LIMITS))
    assert [verdict.check for verdict in verdicts] == [check.name for check in CHECKS]
    assert {verdict.result for verdict in verdicts} == {"pass"}
    assert attempt(verdicts=verdicts).passed


def test_every_key_of_expect_is_held_by_a_check() -> None:
    keys = {check.key for check in CHECKS if check.key}
    assert keys == Expect.model_fields.keys() - {"allow_unmeasured"}


def test_an_attempt_without_a_measurement_passes_nothing_by_silence() -> None:
    names = (
        "gaps streams loss stalls floor memory tcp nic_before nic_after leftovers backend_failed"
    )
    nothing: dict[str, Any] = {
        **dict.fromkeys(
            (*names.split(), "explained", "dirty_rates", "carriers", "carrier_checkpoints")
        ),
        "inside": (),
    }
    verdicts = run_checks(attempt(expect=ALL_LIMITS, reported=ReportedFigures(), **nothing))
    results = {verdict.check: verdict.result for verdict in verdicts}
    assert {name for name, result in results.items() if result == "pass"} == {
        *("outcome", "error", "held-by")
    }
    assert "fail" not in results.values()


def test_what_was_not_asked_makes_no_verdict() -> None:
    keys = ("memory", "tcp", "device", "network", "primary")
    off = attempt(expect=dict.fromkeys(keys, False))
    assert asked(off) == {"outcome", "held-by", "measured", "backend", "clean"}
    assert {"memory", "tcp"} & asked(attempt(workload={"tcp_connections": 0})) == {"memory"}
    assert {"memory", "tcp"} & asked(attempt(workload={"dirty_mib": 0})) == {"tcp"}


# --- how it ended


def test_another_outcome_fails_in_the_words_of_who_said_it() -> None:
    problem = Problem(tried="migrate guest", host="alpha", said="unable to connect to beta")
    found = verdict("outcome", attempt(outcome="failed", error=problem))
    assert (found.result, found.measured, found.limit) == ("fail", "failed", "completed")
    assert found.evidence == "migrate guest on alpha: unable to connect to beta"
    silent = verdict("outcome", attempt(outcome="lost", error=Problem(tried="migrate guest")))
    assert silent.evidence == "migrate guest"


CRASHED = QemuEnd(host="beta", how="by libvirt: crashed", last_words="Assertion `x' failed.")


@pytest.mark.parametrize(
    ("said", "result"),
    [
        ("VQ 0 vring.num 1024 exceeds allocated max 128", "pass"),
        (f"{CRASHED}; client socket is closed", "fail"),
        ("", "fail"),
    ],
)
def test_an_expected_failure_is_expected_in_words(said: str, result: str) -> None:
    """A QEMU that something else has killed is not the refusal that the case is about."""
    expect = {"outcome": "failed", "held_by": ("source",), "error": "exceeds .* max"}
    problem = Problem(tried="migrate to beta", host="alpha", said=said)
    sample = attempt(expect=expect, outcome="failed", held_by=("alpha",), error=problem)
    found = verdict("error", sample)
    assert (found.result, found.limit) == (result, "exceeds .* max")
    assert said in found.evidence
    assert sample.outcome == sample.case.expect.outcome
    judged = sample.model_copy(update={"verdicts": run_checks(sample)})
    assert judged.passed == (result == "pass")


@pytest.mark.parametrize("outcome", ["failed", "lost", "recoverable"])
def test_a_failure_that_is_expected_without_a_word_is_no_pass(outcome: str) -> None:
    problem = Problem(tried="migrate to beta", said="no route to host")
    sample = attempt(expect={"outcome": outcome}, outcome=outcome, error=problem)
    found = verdict("error", sample)
    assert found.result == "unmeasured"
    assert "no route to host; set expect.error to " in found.evidence
    assert "error" not in asked(attempt(expect={"outcome": "aborted"}, outcome="aborted"))


def test_a_guest_whose_postcopy_waits_is_not_said_to_run_nowhere() -> None:
    found = verdict("held-by", attempt(outcome="recoverable", held_by=()))
    assert (found.result, found.evidence) == (
        "fail",
        "the guest runs nowhere until its post-copy is recovered",
    )


def test_an_expected_abort_passes_with_the_guest_on_its_source() -> None:
    found = attempt(
        expect={"outcome": "aborted", "held_by": ("source",)}, outcome="aborted", held_by=("alpha",)
    )
    assert {verdict.result for verdict in run_checks(found)} == {"pass"}
    assert {"memory", "tcp", "device"} <= asked(found)


@pytest.mark.parametrize(
    ("held_by", "said"),
    [
        (("alpha",), "the guest runs on alpha"),
        ((), "THE GUEST RUNS NOWHERE"),
        (("alpha", "beta"), "THE GUEST RUNS ON 2 HOSTS AT ONCE: alpha, beta"),
    ],
)
def test_the_wrong_holder_fails_and_both_or_none_are_said_loudly(
    held_by: tuple[str, ...], said: str
) -> None:
    found = verdict("held-by", attempt(held_by=held_by))
    assert (found.result, found.limit, found.evidence) == ("fail", "beta", said)


def test_a_guest_expected_to_be_gone_is_asked_nothing() -> None:
    found = attempt(expect={"outcome": "lost", "held_by": ()}, outcome="lost", held_by=())
    assert verdict("held-by", found).result == "pass"
    assert not {"memory", "tcp", "device", "network", "backend"} & asked(found)


def test_leftovers_fail_and_name_themselves() -> None:
    found = verdict("clean", attempt(leftovers=("namespace ml-alpha", "tap vnet0")))
    assert (found.result, found.evidence) == ("fail", "namespace ml-alpha; tap vnet0")


# --- limits


def test_why_there_is_no_floor_stands_in_the_verdict() -> None:
    why = ("77 packets in its window, 100 are needed", "the workload fell short")
    found = verdict("measured", attempt(floor=None, no_floor=why))
    assert found.result == "unmeasured"
    assert found.evidence == f"no floor: {why[0]}; {why[1]}"


@pytest.mark.parametrize("part", ["gaps", "streams", "floor"])
def test_measured_needs_gaps_streams_and_floor(part: str) -> None:
    found = verdict("measured", attempt(**{part: None}))
    assert (found.result, found.evidence) == ("unmeasured", f"no {part}")


@pytest.mark.parametrize("direction", ["egress", "ingress"])
@pytest.mark.parametrize(
    ("length", "error", "result"),
    [
        (300, 1, "pass"),
        (499, 1, "pass"),
        (499.5, 1, "unmeasured"),
        (501, 1, "unmeasured"),
        (501.5, 1, "fail"),
        (30, 480, "unmeasured"),
    ],
)
def test_an_outage_is_ranked_only_outside_its_error(
    direction: str, length: float, error: float, result: str
) -> None:
    found = verdict(
        f"outage.{direction}",
        attempt(
            expect=ALL_LIMITS, gaps=(gap(length, error, direction=direction), gap(10), gap(10))
        ),
    )
    assert found.result == result
    assert ("is within the error" in found.evidence) == (result == "unmeasured")


def test_an_outage_is_described_in_a_sentence() -> None:
    many = (gap(900, lost=700, late=3), gap(100))
    found = verdict("outage.egress", attempt(expect=ALL_LIMITS, gaps=many))
    assert (found.result, found.measured, found.limit, found.unit) == (
        *("fail", "900.0 ± 1.0", "500", "ms"),
    )
    assert found.evidence == (
        "egress gap of 900.0 ± 1.0 ms, 1.500 s into the attempt during stopped, announce: "
        "700 lost, 3 late; 2 gaps, together 1000.0 ms"
    )
    alone = attempt(expect=ALL_LIMITS, gaps=(gap(900, phases=(), part="none"),))
    assert "with no migration going on: 0 lost" in verdict("outage.egress", alone).evidence


def test_an_open_ended_gap_passes_no_limit() -> None:
    short = attempt(expect=ALL_LIMITS, gaps=(gap(300, open_ended=True),))
    found = verdict("outage.egress", short)
    assert found.result == "unmeasured"
    assert "at least 300.0" in found.evidence
    assert "it had not ended when the measurement did" in found.evidence
    long = attempt(expect=ALL_LIMITS, gaps=(gap(900, open_ended=True),))
    assert verdict("outage.egress", long).result == "fail"


def test_no_gap_passes_only_a_limit_above_the_floor() -> None:
    quiet = attempt(expect=ALL_LIMITS, gaps=())
    found = verdict("outage.ingress", quiet)
    assert (found.result, found.measured) == ("pass", "≤ 4.0")
    strict = attempt(expect={"outage_ingress_ms": 3.5}, gaps=())
    found = verdict("outage.ingress", strict)
    assert (found.result, found.evidence) == (
        *("unmeasured", "a gap shorter than the floor, 4.0 ms, can't be seen"),
    )
    blind = attempt(expect=ALL_LIMITS, gaps=(), floor=None)
    assert verdict("outage.ingress", blind).result == "unmeasured"


@pytest.mark.parametrize(
    ("stalls", "result"),
    [
        ((), "pass"),
        ((stall(20), stall(400)), "pass"),
        ((stall(20), stall(600)), "fail"),
        ((stall(500, 10),), "unmeasured"),
        (None, "unmeasured"),
    ],
)
def test_the_longest_stall_is_checked_against_the_limit(
    stalls: tuple[Stall, ...] | None, result: str
) -> None:
    assert verdict("stall", attempt(expect=ALL_LIMITS, stalls=stalls)).result == result


@pytest.mark.parametrize(
    ("check", "reported", "result"),
    [
        ("downtime", ReportedFigures(downtime_ms=500), "pass"),
        ("downtime", ReportedFigures(downtime_ms=501), "fail"),
        ("downtime", ReportedFigures(total_ms=1), "unmeasured"),
        ("total", ReportedFigures(total_ms=5000), "pass"),
        ("total", ReportedFigures(total_ms=5001), "fail"),
        ("total", ReportedFigures(downtime_ms=1), "unmeasured"),
    ],
)
def test_what_the_hypervisor_reports_is_checked_against_the_limit(
    check: str, reported: ReportedFigures, result: str
) -> None:
    assert verdict(check, attempt(expect=ALL_LIMITS, reported=reported)).result == result


# --- what became of the guest


def test_a_wrong_page_is_named() -> None:
    broken = MemoryCheck(pages=2048, writes=9000, wrong_page=17, expected="5a01", found="0000")
    found = verdict("memory", attempt(memory=broken))
    assert found.result == "fail"
    assert found.evidence == "page 17 of 2048 is wrong after 9000 writes: 5a01 expected, 0000 found"


@pytest.mark.parametrize("check", [MemoryCheck(pages=0, writes=0), MemoryCheck(pages=9, writes=0)])
def test_memory_that_was_not_written_proves_nothing(check: MemoryCheck) -> None:
    assert verdict("memory", attempt(memory=check)).result == "unmeasured"


@pytest.mark.parametrize(
    ("check", "result"),
    [
        (TcpCheck(opened=2, alive=2, resets=0, longest_stall_ms=9, answered=2), "pass"),
        (TcpCheck(opened=2, alive=2, resets=0, longest_stall_ms=9, answered=1), "fail"),
        (TcpCheck(opened=2, alive=2, resets=0, longest_stall_ms=9), "unmeasured"),
        (TcpCheck(opened=2, alive=1, resets=0, longest_stall_ms=9), "fail"),
        (TcpCheck(opened=2, alive=2, resets=1, longest_stall_ms=9), "fail"),
        (TcpCheck(opened=0, alive=0, resets=0, longest_stall_ms=0), "unmeasured"),
    ],
)
def test_connections_must_live_and_must_have_been_opened(check: TcpCheck, result: str) -> None:
    assert verdict("tcp", attempt(tcp=check)).result == result


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": "1011"}, "features differ in bits 1, 2"),
        ({"features": "11"}, "features was '1101', is '11'"),
        ({"mac": "52:54:00:00:00:02"}, "mac was '52:54:00:6d:6c:01', is '52:54:00:00:00:02'"),
        ({"rx_queues": 2}, "rx_queues was 1, is 2"),
        ({"tx_queues": 2}, "tx_queues was 1, is 2"),
        ({"driver": "igbvf"}, "driver was 'virtio_net', is 'igbvf'"),
        ({"mtu": 9000}, "mtu was 1500, is 9000"),
        ({"carrier": False}, "carrier was True, is False"),
    ],
)
def test_a_device_that_changed_fails(change: dict[str, Any], said: str) -> None:
    before = NIC.model_copy(update={"features": "1101"})
    found = verdict(
        "device", attempt(nic_before=before, nic_after=before.model_copy(update=change))
    )
    assert (found.result, found.evidence) == ("fail", said)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_device_that_was_not_read_is_unmeasured(when: str) -> None:
    found = verdict("device", attempt(**{f"nic_{when}": None}))
    assert (found.result, f"not read {when} the move" in found.evidence) == ("unmeasured", True)


@pytest.mark.parametrize("way", ["egress", "ingress"])
@pytest.mark.parametrize(
    ("last", "result"),
    [
        pytest.param({"length": 900, "open_ended": True}, "fail", id="silent-to-the-end"),
        pytest.param({"length": 501, "open_ended": True}, "fail", id="silent-for-the-last-half"),
        pytest.param({"length": 200, "open_ended": True}, "unmeasured", id="silent-at-the-end"),
        pytest.param({"length": 900}, "pass", id="back-again"),
    ],
)
def test_a_direction_must_not_be_dead_at_the_end(
    way: str, last: dict[str, Any], result: str
) -> None:
    gaps = (gap(300), gap(direction=way, **last))
    found = verdict("network", attempt(workload={"settle_s": 1}, gaps=gaps))
    said = {
        "fail": f"{way} for at least",
        "unmeasured": f"{way} received nothing for the last 200 ms",
    }
    assert (found.result, said.get(result, "both ways") in found.evidence) == (result, True)


def test_both_directions_are_named_where_both_are_dead() -> None:
    gaps = [gap(2000, direction=way, open_ended=True) for way in ("egress", "ingress")]
    evidence = verdict("network", attempt(gaps=tuple(gaps))).evidence
    assert "egress for" in evidence
    assert "ingress for" in evidence


def test_a_network_that_was_not_measured_does_not_pass() -> None:
    assert verdict("network", attempt(gaps=None)).result == "unmeasured"


DEAD = ("qemu-system-x86_64: unable to start vhost net: 95: falling back on userspace virtio",)


@pytest.mark.parametrize(
    ("failed", "expected", "result", "evidence"),
    [
        ((), False, "pass", "QEMU logged no backend error"),
        (DEAD, False, "fail", DEAD[0]),
        (None, False, "unmeasured", "the log of the guest's QEMU was not read"),
        (DEAD, True, "pass", DEAD[0]),
        ((), True, "fail", "QEMU logged no backend error"),
        (None, True, "unmeasured", "the log of the guest's QEMU was not read"),
    ],
)
def test_a_backend_that_failed_the_guest_is_reported_as_qemu_logged_it(
    failed: tuple[str, ...] | None, expected: bool, result: str, evidence: str
) -> None:
    done = attempt(expect={"backend_fails": expected}, backend_failed=failed)
    found = verdict("backend", done)
    assert (found.result, found.evidence) == (result, evidence)


@pytest.mark.parametrize(("lost", "result"), [(280, "pass"), (660, "fail"), (500, "unmeasured")])
def test_a_floor_that_loses_itself_allows_for_twice_of_it(lost: int, result: str) -> None:
    """9 % with nothing going on, as on a nested lab whose hosts are emulated."""
    others = (loss("ingress", "floor"), loss("ingress", "after"))
    accounts = (loss("egress", "floor", 90), loss("egress", "after", lost, sent=2000), *others)
    found = verdict("loss.egress", attempt(loss=accounts))
    assert (found.result, found.limit) == (result, "0.18")
