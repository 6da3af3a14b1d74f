"""What a scenario with ``failover`` may not ask for."""

from __future__ import annotations

from migrate.backends.rule import Rule
from migrate.backends.sriov.rules import NOT_SAVED

RULES = (
    NOT_SAVED,
    Rule(
        "guest.machine",
        lambda case: case.guest.machine != "q35",
        "QEMU takes a failover pair's primary on PCI Express only",
        "guest.machine = 'q35'",
    ),
)
