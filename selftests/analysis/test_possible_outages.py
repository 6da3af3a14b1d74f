"""Outages as long as they may have been: gaps that may go on, and what was not measured."""

from __future__ import annotations

import math
from typing import Any

import pytest

from migrate.analysis.possible_outages import possible_outages
from migrate.checks.registry import run_checks
from migrate.model import Direction
from selftests.checks.samples import MS, attempt, gap, unknown


def lengths(**changes: Any) -> list[tuple[float, float]]:
    found = possible_outages(attempt(**changes), "egress")
    return [(outage.least_ms, outage.most_ms) for outage in found]


def at(begin: float, length: float, **changes: Any) -> Any:
    return gap(length, begin_ns=round(begin * MS), **changes)


def test_gaps_are_as_long_as_their_error_lets_them() -> None:
    assert lengths(gaps=(at(100, 50), at(300, 20, error=2))) == [(49, 51), (18, 22)]
    assert lengths(gaps=(at(100, 50, direction="ingress"),)) == []


def test_one_that_had_not_ended_may_go_on() -> None:
    assert lengths(gaps=(at(900, 100, open_ended=True),)) == [(99, math.inf)]


def test_a_stretch_may_be_one_outage_with_the_gaps_beside_it() -> None:
    both = lengths(gaps=(at(100, 50), at(350, 20)), unmeasured=(unknown(150, 200),))
    assert len(both) == 1
    assert both[0][0] == 49
    assert 270 <= both[0][1] <= 273
    apart = lengths(gaps=(at(100, 50),), unmeasured=(unknown(400, 200),))
    assert apart == [(49, 51), (0, 200)]


def test_two_gaps_side_by_side_are_two() -> None:
    assert len(lengths(gaps=(at(100, 50), at(151, 20)))) == 2


def test_a_stretch_to_the_end_may_go_on() -> None:
    to_the_end = unknown(400, 600, open_ended=True)
    assert lengths(gaps=(), unmeasured=(to_the_end,)) == [(0, math.inf)]
    assert lengths(gaps=(), unmeasured=(unknown(400, 100),)) == [(0, 100)]


# --- and the verdicts on them


def results(expect: dict[str, Any], **changes: Any) -> dict[str, str]:
    verdicts = run_checks(attempt(expect=expect, **changes))
    return {verdict.check: verdict.result for verdict in verdicts}


@pytest.mark.parametrize("way", ["egress", "ingress"])
def test_what_the_meter_lost_from_a_point_on_is_no_outage_and_no_dead_network(
    way: Direction,
) -> None:
    """Its log was full at 400 ms: neither fails, neither passes, nor was it measured."""
    lost = {"gaps": (), "unmeasured": (unknown(400, 600, way, open_ended=True),)}
    found = results({f"outage_{way}_ms": 500}, **lost)
    assert found[f"outage.{way}"] == found["network"] == found["measured"] == "unmeasured"


def test_what_a_guest_received_that_is_expected_to_be_gone_need_not_be_known() -> None:
    lost = {
        "gaps": (),
        "unmeasured": (unknown(400, 600, "ingress", open_ended=True),),
        "held_by": (),
    }
    expect = {"outcome": "lost", "held_by": ()}
    assert results(expect, outcome="lost", **lost)["measured"] == "pass"


def test_an_outage_within_the_limit_whatever_was_not_measured_passes() -> None:
    found = results({"outage_egress_ms": 500}, gaps=(at(100, 50),), unmeasured=(unknown(300, 90),))
    assert (found["outage.egress"], found["measured"]) == ("pass", "pass")
    short = results({"outage_egress_ms": 80}, gaps=(at(100, 50),), unmeasured=(unknown(300, 90),))
    assert short["outage.egress"] == "unmeasured"


def test_a_gap_over_the_limit_fails_whatever_was_not_measured() -> None:
    found = results({"outage_egress_ms": 40}, gaps=(at(100, 50),), unmeasured=(unknown(300, 90),))
    assert found["outage.egress"] == "fail"


def test_a_report_agrees_only_if_no_stretch_hides_a_longer_gap() -> None:
    gaps = (gap(65), gap(62, direction="ingress"))
    expect = {"reported_within_ms": 10}
    assert results(expect, gaps=gaps)["reported.agrees"] == "pass"
    hidden = results(expect, gaps=gaps, unmeasured=(unknown(300, 90),))
    assert hidden["reported.agrees"] == "unmeasured"
