"""Moves between two versions of QEMU. Needs a lab that has both: --lab labs/versions.toml. Each
test is three sentences."""

from __future__ import annotations

from pathlib import Path

from migrate.plugins.pytest import Scenario, Verdicts

VERSIONS = Path(__file__).parent / "scenarios" / "versions.toml"


def test_a_guest_of_a_newer_qemu_goes_to_an_older_one_and_back(
    scenario: Scenario, verdicts: Verdicts
) -> None:
    attempt = scenario(VERSIONS, variant="11.1-to-10.0.13-virtio")
    verdicts(attempt)


def test_a_guest_of_an_older_qemu_goes_to_a_newer_one_and_back(
    scenario: Scenario, verdicts: Verdicts
) -> None:
    attempt = scenario(VERSIONS, variant="10.0.2-to-11.1-virtio")
    verdicts(attempt)


def test_a_guest_of_the_oldest_qemu_goes_to_the_newest_and_back(
    scenario: Scenario, verdicts: Verdicts
) -> None:
    attempt = scenario(VERSIONS, variant="7.2-to-11.1-virtio")
    verdicts(attempt)


def test_a_guest_that_a_newer_qemu_refuses_stays_where_it_is(
    scenario: Scenario, verdicts: Verdicts
) -> None:
    attempt = scenario(VERSIONS, variant="10.0.13-to-11.1-refused-virtio")
    verdicts(attempt)
