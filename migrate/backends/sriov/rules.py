"""What a scenario with any mode that gives the guest a VF may not ask for."""

from __future__ import annotations

from migrate.backends.rule import Rule

NOT_SAVED = Rule(
    "policy.method",
    lambda case: case.policy.method == "save-restore",
    "a domain that has a VF can't be saved: no file holds the state of a device",
    "another method, or another mode",
)
