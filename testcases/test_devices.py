"""Guests on a device of the host: vDPA, a virtual function, or both kinds side by side. Needs a lab
that has them: --lab labs/nested.toml. Each test is three sentences."""

from __future__ import annotations

from pathlib import Path

from migrate.plugins.pytest import Scenario, Verdicts

SCENARIOS = Path(__file__).parent / "scenarios"


def test_a_vdpa_guest_goes_on_behind_shadow_virtqueues(
    scenario: Scenario, verdicts: Verdicts
) -> None:
    attempt = scenario(SCENARIOS / "vdpa.toml", variant="precopy")
    verdicts(attempt)
    assert any("shadow virtqueues" in note for note in attempt.notes)


def test_a_move_that_kills_the_network_is_told_in_qemus_words(
    scenario: Scenario, verdicts: Verdicts
) -> None:
    attempt = scenario(SCENARIOS / "vdpa.toml", variant="lost-rings")
    verdicts(attempt)
    assert attempt.outcome == "completed"
    assert any("unable to start vhost net" in line for line in attempt.backend_failed or ())


def test_unplug_stop_and_replug_are_told_apart(scenario: Scenario, verdicts: Verdicts) -> None:
    attempt = scenario(SCENARIOS / "failover.toml", variant="move")
    verdicts(attempt)
    assert {"wait-unplug", "standby", "replug"} <= {phase.name for phase in attempt.phases}


def test_a_virtual_function_is_refused_as_it_is(scenario: Scenario, verdicts: Verdicts) -> None:
    attempt = scenario(SCENARIOS / "hostdev.toml", variant="precopy-refused")
    verdicts(attempt)
    assert attempt.error is not None
    assert "migration" in attempt.error.said


def test_a_virtual_function_is_taken_out_and_the_targets_put_in(
    scenario: Scenario, verdicts: Verdicts
) -> None:
    attempt = scenario(SCENARIOS / "hostdev.toml", variant="reattach")
    verdicts(attempt)


def test_a_host_that_dies_leaves_the_guest_and_is_replaced(
    scenario: Scenario, verdicts: Verdicts
) -> None:
    attempt = scenario(SCENARIOS / "hosts.toml", variant="kill-target")
    verdicts(attempt)
