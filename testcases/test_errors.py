"""What goes wrong while a guest moves: who runs it now, and is it whole? Each test is three
sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.errors import HostError
from migrate.migration.faults import stop_libvirtd
from migrate.model import Policy
from migrate.plugins.pytest import Boot, MakeCase, Scenario, Verdicts
from migrate.scenario.loader import load

SCENARIOS = Path(__file__).parent / "scenarios"
MODES = SCENARIOS / "modes.toml"
SPLIT = "interface.ring=split"
FAULTS = {
    case.id: case
    for case in load(SCENARIOS / "faults.toml").cases
    if case.id != "faults-cut-migration-link"  # libvirt's keepalive takes half a minute to notice
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_leaves_the_guest_where_it_belongs(
    name: str, scenario: Scenario, verdicts: Verdicts
) -> None:
    attempt = scenario(FAULTS[name])
    verdicts(attempt)


def test_a_move_that_is_called_off_leaves_the_guest_on_the_source(
    scenario: Scenario, verdicts: Verdicts
) -> None:
    attempt = scenario(SCENARIOS / "abort.toml", "interface.mode=virtio", "policy.abort_at=precopy")
    verdicts(attempt)


def test_a_move_that_cannot_begin_is_refused_and_the_guest_stays(
    scenario: Scenario, verdicts: Verdicts
) -> None:
    refused = next(c for c in load(SCENARIOS / "policies.toml").cases if "refused" in c.id)
    attempt = scenario(refused)
    verdicts(attempt)


def test_a_move_that_takes_too_long_is_given_up(case: MakeCase, scenario: Scenario) -> None:
    slow = Policy(bandwidth_mib_s=2, timeout_s=1)
    attempt = scenario(case(MODES, "interface.mode=virtio", SPLIT).with_(policy=slow))
    assert (attempt.outcome, attempt.held_by) == ("aborted", (attempt.source,))


def test_a_host_without_libvirt_is_named(boot: Boot) -> None:
    with boot(MODES, "interface.mode=virtio", SPLIT) as stage:
        start = stop_libvirtd(stage.pair[1])
        try:
            with pytest.raises(HostError, match=f"to libvirt on host {stage.target.name}"):
                stage.target.migrate_from(stage.source)
        finally:
            start()


def test_a_guest_can_be_moved_again_after_a_move_that_failed(boot: Boot) -> None:
    with boot(FAULTS["faults-kill-incoming"]) as stage:
        assert stage.target.migrate_from(stage.source).outcome == "failed"
        assert stage.target.migrate_from(stage.source, faults=()).outcome == "completed"
