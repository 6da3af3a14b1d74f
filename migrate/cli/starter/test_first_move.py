"""A first test: one guest is migrated under load, and judged.

Run it as root::

    pytest --lab lab.toml

``scenario`` starts a guest as the file says, migrates it, and returns an ``Attempt``: its gaps, the
figures reported, which host has the guest. ``verdicts`` fails the test unless every verdict passed.
docs/pytest.md has the other fixtures.
"""

from pathlib import Path

from migrate.plugins.pytest import Scenario, Verdicts

FIRST_MOVE = Path(__file__).with_name("first-move.toml")


def test_a_guest_that_writes_a_lot_arrives_whole(scenario: Scenario, verdicts: Verdicts) -> None:
    busy = ("interface.mode=virtio", "workload.dirty_mib_s=32")
    attempt = scenario(FIRST_MOVE, *busy)
    verdicts(attempt)
