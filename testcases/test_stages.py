"""What holds a move up is put at the right stage of it, by every version of QEMU on either end.
Needs a lab that has them: --lab labs/versions.toml. Each test is three sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.model import Attempt, Fault, PhaseName, Span
from migrate.plugins.pytest import Scenario
from migrate.scenario.loader import load

MODES = Path(__file__).parent / "scenarios" / "modes.toml"
PAIRS = {
    "7.2-to-10.0.13": ("debian-12", "debian-13"),
    "10.0.2-to-10.0.13": ("debian-12-backports", "debian-13"),
    "10.0.2-to-11.1": ("debian-12-backports", "debian-13-backports"),
    "10.0.13-to-7.2": ("debian-13", "debian-12"),
    "10.0.13-to-10.0.2": ("debian-13", "debian-12-backports"),
    "11.1-to-10.0.13": ("debian-13-backports", "debian-13"),
}
"""Each version on either end; three of them with trace points on both."""
LOADING = {
    "the rest of memory arrives and is loaded",
    "devices are loaded",
    "memory and devices are loaded",
}
SENDING = LOADING | {"the rest of memory is sent", "memory is sent and loaded"}
HELD_S = 3.0
SLACK_S = 1.0
"""TCP tries again ever more seldom while a link is down; a busy machine is late."""
# So much is written anew all the time that there is memory left to send at the stop for longer than
# it takes to have something happen in it.
WORKLOAD = (
    "interface.mode=virtio",
    "interface.ring=split",
    "guest.memory_mib=192",
    "workload.dirty_mib=96",
    "workload.dirty_mib_s=1000",
    "policy.downtime_limit_ms=5000",
)


def held_up(scenario: Scenario, pair: str, fault: Fault) -> Attempt:
    """A move in which something stands still for :data:`HELD_S`."""
    (case,) = load(MODES, WORKLOAD).cases
    return scenario(case.model_copy(update={"roots": PAIRS[pair], "faults": (fault,)}))


def stage_of_the_fault(attempt: Attempt) -> Span:
    """The stage of the guest's stop in which most of the fault's time lies."""
    assert attempt.outcome == "completed", attempt.error
    (inside,) = attempt.inside
    return max(inside.stop or (), key=lambda span: span.length_ms)


@pytest.mark.parametrize("at", ["pre-switchover", "device"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_target_that_is_frozen_is_slow_to_load(
    pair: str, at: PhaseName, scenario: Scenario
) -> None:
    fault = Fault(at=at, do="freeze-guest", on="target", for_s=HELD_S)
    attempt = held_up(scenario, pair, fault)
    stage = stage_of_the_fault(attempt)
    assert (stage.host, stage.what in LOADING) == (attempt.target, True)
    assert HELD_S <= stage.length_ms / 1e3 < HELD_S + SLACK_S
    assert all(gap.share > 0.95 for gap in attempt.explained or ())


@pytest.mark.parametrize("at", ["pre-switchover", "device"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_link_that_is_down_delays_what_is_on_its_way(
    pair: str, at: PhaseName, scenario: Scenario
) -> None:
    fault = Fault(at=at, do="cut-migration-link", for_s=HELD_S)
    attempt = held_up(scenario, pair, fault)
    stage = stage_of_the_fault(attempt)
    assert stage.what in SENDING
    assert HELD_S - SLACK_S <= stage.length_ms / 1e3 < HELD_S + 2 * SLACK_S
    assert all(gap.share > 0.95 for gap in attempt.explained or ())
