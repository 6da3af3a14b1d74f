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
    "10.0.2-to-11.1": ("debian-12-backports", "debian-13-backports"),
    "10.0.13-to-7.2": ("debian-13", "debian-12"),
    "10.0.13-to-10.0.2": ("debian-13", "debian-12-backports"),
    "11.1-to-10.0.13": ("debian-13-backports", "debian-13"),
}
"""Each version on either end."""
# So much is written anew all the time that there is memory left to send at the stop for longer than
# it takes to have something happen in it.
WORKLOAD = (
    "interface.mode=virtio",
    "interface.ring=split",
    "guest.memory_mib=160",
    "workload.dirty_mib=48",
    "workload.dirty_mib_s=200",
    "policy.downtime_limit_ms=5000",
)
HELD_S = 3.0
NOTICED_S = 2.0
"""At most so much longer a stage is: TCP tries again ever more seldom while a link is down, and the
memory has its own time."""
UNDER_WAY = {
    "sending the rest of memory",
    "sending and loading memory",
    "loading the rest of memory",
    "loading device state",
    "loading memory and device state",
}
"""Stages that a target which stands still, or a link that is down, can hold up: not libvirt's."""


def held_up(scenario: Scenario, pair: str, fault: Fault) -> Attempt:
    """A move in which something stands still for :data:`HELD_S`."""
    (case,) = load(MODES, WORKLOAD).cases
    return scenario(case.model_copy(update={"roots": PAIRS[pair], "faults": (fault,)}))


def longest_stage(attempt: Attempt) -> Span:
    """Of the guest's stop."""
    assert attempt.outcome == "completed", attempt.error
    (inside,) = attempt.inside
    return max(inside.stop or (), key=lambda span: span.length_ms)


@pytest.mark.parametrize("at", ["pre-switchover", "device"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_target_that_is_frozen_holds_up_what_is_sent_to_it(
    pair: str, at: PhaseName, scenario: Scenario
) -> None:
    fault = Fault(at=at, do="freeze-guest", on="target", for_s=HELD_S)
    attempt = held_up(scenario, pair, fault)
    stage = longest_stage(attempt)
    assert stage.what in UNDER_WAY
    assert HELD_S <= stage.length_ms / 1e3 < HELD_S + NOTICED_S
    assert all(gap.share > 0.95 for gap in attempt.explained or ())


@pytest.mark.parametrize("pair", PAIRS)
def test_a_link_that_is_down_holds_up_what_is_on_its_way(pair: str, scenario: Scenario) -> None:
    fault = Fault(at="pre-switchover", do="cut-migration-link", for_s=HELD_S)
    attempt = held_up(scenario, pair, fault)
    stage = longest_stage(attempt)
    assert stage.what in UNDER_WAY
    assert HELD_S <= stage.length_ms / 1e3 < HELD_S + NOTICED_S
    assert all(gap.share > 0.95 for gap in attempt.explained or ())
