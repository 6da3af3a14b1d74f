"""What a scenario with ``hostdev`` may not ask for."""

from __future__ import annotations

from migrate.backends.rule import Rule
from migrate.backends.sriov.rules import NOT_SAVED

RULES = (
    Rule(
        "policy.method",
        lambda case: case.policy.may_postcopy,
        "post-copy does not work with mode hostdev: a device's DMA can't wait for a missing page",
        "method = 'precopy' and on_timeout = 'abort' or 'suspend', or another mode",
    ),
    NOT_SAVED,
    Rule(
        "interface.mode",
        lambda case: (
            case.interface.ring != "split"
            or case.interface.queues != 1
            or case.interface.mtu != 1500
            or not case.interface.offloads
        ),
        "rings, queues, MTU and offloads of a VF are its driver's own, in the guest",
        "leave out ring, queues, mtu and offloads, or another mode",
    ),
)
