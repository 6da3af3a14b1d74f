"""What a guest and its peer live through when the guest moves. Each test is three sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.pytest_plugin import Boot, Scenario, Verdicts

SCENARIOS = Path(__file__).parent / "scenarios"
MODES = SCENARIOS / "modes.toml"


@pytest.mark.parametrize("ring", ["split", "packed"])
@pytest.mark.parametrize("mode", ["virtio", "vhost-user"])
def test_a_guest_keeps_its_memory_and_connections(
    mode: str, ring: str, scenario: Scenario, verdicts: Verdicts
) -> None:
    attempt = scenario(MODES, f"interface.mode={mode}", f"interface.ring={ring}")
    verdicts(attempt)


def test_there_and_back(scenario: Scenario, verdicts: Verdicts) -> None:
    attempt = scenario(SCENARIOS / "ping-pong.toml", "interface.mode=virtio")
    verdicts(attempt)


def test_saved_here_and_restored_there(scenario: Scenario, verdicts: Verdicts) -> None:
    attempt = scenario(SCENARIOS / "save-restore.toml", "interface.mode=virtio")
    verdicts(attempt)


def test_an_outage_longer_than_the_downtime_is_seen(scenario: Scenario) -> None:
    attempt = scenario(MODES, "interface.mode=virtio", "interface.ring=split")
    seen = [gap for gap in attempt.gaps or () if gap.part == "switchover"]
    assert {gap.direction for gap in seen} == {"egress", "ingress"}


def test_the_guest_can_be_acted_on_by_hand(boot: Boot) -> None:
    with boot(MODES, "interface.mode=virtio", "interface.ring=split") as stage:
        moved = stage.move()
        assert moved.held_by == (stage.domain.host,)
