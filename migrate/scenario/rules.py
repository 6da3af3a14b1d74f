"""What a scenario may not ask for, though each value by itself is right.

Here is what holds for every case; each mode has rules of its own beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from migrate.backends.base import BackendMode
from migrate.backends.registry import MODES, backend_mode
from migrate.backends.rule import Rule
from migrate.errors import ConfigurationError
from migrate.formats.qemu_migration import POSTCOPY
from migrate.model import Case, PhaseName, VirtualFunction


def rules_of(case: Case) -> tuple[Rule, ...]:
    """All that a case has to keep."""
    return (*RULES, *backend_mode(case.interface.mode).rules)


def check_rules(case: Case, *, judged: bool) -> None:
    """Raise ConfigurationError for the first rule that a case made in Python breaks.

    ``judged``: by its expectations; a test that judges for itself may leave them as they are.
    """
    for rule in rules_of(case):
        if (judged or not rule.of_expectation) and rule.broken(case):
            raise ConfigurationError(
                f"try the case {case.id}, {rule.key}", said=rule.said, remedy=rule.remedy
            )


def phases_of(case: Case) -> frozenset[PhaseName]:
    """The phases that a move by this policy can have."""
    phases: set[PhaseName] = {"setup", "stopped", "device", "resumed", "announce", "settled"}
    phases |= {"cancelling", "failing"}
    if case.policy.method != "save-restore":
        phases |= {"precopy", "pre-switchover"}
        if case.policy.may_postcopy:
            phases |= {"postcopy-device", *POSTCOPY}
    return frozenset(phases) | backend_mode(case.interface.mode).phases


def _saved(case: Case) -> bool:
    return case.policy.method == "save-restore"


def _modes(able: Callable[[BackendMode[Any]], bool]) -> str:
    return " or ".join(f"'{name}'" for name, mode in MODES.items() if able(mode))


TOO_LATE: frozenset[PhaseName] = frozenset(
    {"cancelling", "failing", "postcopy-device", *POSTCOPY}
    | {"resumed", "announce", "replug", "settled"}
)
"""Phases in which a move can't be aborted any more, or has been."""
FOR_GOOD = frozenset({"kill-guest", "stop-backend", "kill-host"})
"""Faults of which nothing can be put back while the move goes on."""
BESIDE_DIRTY_MIB = 88
"""What a guest needs beside the memory that it writes to. Of 128 MiB 77 are the kernel's and the
image's; without the rest, a burst of packets made the guest's kernel kill the probe."""
REATTACHED = _modes(lambda mode: mode.can_reattach)
WITH_PROCESS = _modes(lambda mode: mode.has_process)
WITH_VF = _modes(lambda mode: mode.has_vf)

RULES: tuple[Rule, ...] = (
    Rule(
        "interface.vf.port_profile",
        lambda case: (
            case.interface.vf.port_profile is not None and case.interface.vf.vlan is not None
        ),
        "a port profile and a VLAN exclude each other: the profile says which VLAN it is",
        "one of the two",
    ),
    Rule(
        "policy.method",
        lambda case: (
            case.policy.method == "reattach" and not backend_mode(case.interface.mode).can_reattach
        ),
        f"only mode {REATTACHED} can be reattached: others are migrated with their device",
        f"mode = {REATTACHED}, or another method",
    ),
    Rule(
        "policy.parallel_connections",
        lambda case: case.policy.parallel_connections is not None and case.policy.may_postcopy,
        "parallel connections and post-copy exclude each other",
        "leave one of the two out (on_timeout = 'postcopy' counts as post-copy)",
    ),
    Rule(
        "policy.compression",
        lambda case: (
            case.policy.compression == "xbzrle" and case.policy.parallel_connections is not None
        ),
        "xbzrle and parallel connections exclude each other",
        "compression = 'zlib' or 'zstd', or no parallel_connections",
    ),
    Rule(
        "policy.compression",
        lambda case: (
            case.policy.compression in ("zlib", "zstd") and case.policy.parallel_connections is None
        ),
        "zlib and zstd compress parallel connections only",
        "set parallel_connections, or compression = 'xbzrle'",
    ),
    Rule(
        "policy.method",
        lambda case: (
            _saved(case)
            and (
                case.policy.auto_converge
                or case.policy.compression != "none"
                or case.policy.parallel_connections is not None
                or case.policy.on_timeout != "abort"
            )
        ),
        "save-restore stops the guest first: no convergence, compression, channels or on_timeout",
        "leave out auto_converge, compression, parallel_connections and on_timeout",
    ),
    Rule(
        "policy.postcopy_bandwidth_mib_s",
        lambda case: (
            case.policy.postcopy_bandwidth_mib_s is not None and not case.policy.may_postcopy
        ),
        "a bandwidth for post-copy, but no post-copy",
        "method = 'postcopy' or on_timeout = 'postcopy', or leave it out",
    ),
    Rule(
        "policy.abort_at",
        lambda case: (
            case.policy.abort_at in TOO_LATE
            or (case.policy.abort_at is not None and case.policy.abort_at not in phases_of(case))
        ),
        "a move can't be aborted in this phase, or never has it",
        "a phase before the guest runs on the target that this method has",
    ),
    Rule(
        "policy.abort_at",
        lambda case: case.policy.abort_at is not None and case.expect.outcome == "completed",
        "aborted on purpose, but expected to be completed",
        "expect.outcome = 'aborted' and expect.held_by = ['source']",
        of_expectation=True,
    ),
    Rule(
        "expect.error",
        lambda case: case.expect.error is not None and case.expect.outcome == "completed",
        "an error is expected, but the move is expected to complete",
        "expect.outcome = 'failed', or no expect.error",
        of_expectation=True,
    ),
    Rule(
        "expect.held_by",
        lambda case: (
            case.policy.hops % 2 == 0
            and case.expect.outcome == "completed"
            and case.expect.held_by == ("target",)
        ),
        "an even number of hops ends on the host where it began",
        "expect.held_by = ['source']",
        of_expectation=True,
    ),
    Rule(
        "expect.held_by",
        lambda case: len(set(case.expect.held_by)) != len(case.expect.held_by),
        "a side is there twice",
        "name each side once; [] is no host",
        of_expectation=True,
    ),
    Rule(
        "faults",
        lambda case: any(fault.at not in phases_of(case) for fault in case.faults),
        "a fault waits for a phase that this method never has",
        "another `at`, or another policy.method",
    ),
    Rule(
        "faults",
        lambda case: (
            any(fault.do == "stop-backend" for fault in case.faults)
            and not backend_mode(case.interface.mode).has_process
        ),
        "no process backs the interface that could be stopped",
        f"mode = {WITH_PROCESS}, or another fault",
    ),
    Rule(
        "faults",
        lambda case: any(f.for_s is not None and f.do in FOR_GOOD for f in case.faults),
        "a kill can't be undone after a while",
        "leave out for_s, or another fault",
    ),
    Rule(
        "expect.memory",
        lambda case: case.expect.memory and case.workload.dirty_mib == 0,
        "memory can't be judged if the workload writes none",
        "workload.dirty_mib of 1 or more, or expect.memory = false",
        of_expectation=True,
    ),
    Rule(
        "expect.tcp",
        lambda case: case.expect.tcp and case.workload.tcp_connections == 0,
        "connections can't be judged if the workload opens none",
        "workload.tcp_connections of 1 or more, or expect.tcp = false",
        of_expectation=True,
    ),
    Rule(
        "workload.dirty_mib",
        lambda case: case.workload.dirty_mib > case.guest.memory_mib - BESIDE_DIRTY_MIB,
        "the guest has not that much memory to write to",
        f"at most guest.memory_mib - {BESIDE_DIRTY_MIB}",
    ),
    Rule(
        "interface.vf",
        lambda case: (
            case.interface.vf != VirtualFunction() and not backend_mode(case.interface.mode).has_vf
        ),
        "options of a VF, but no VF",
        f"mode = {WITH_VF}, or leave them out",
    ),
    Rule(
        "expect.backend_fails",
        lambda case: case.expect.backend_fails and not case.expect.held_by,
        "a guest that is gone has no interface that could be dead",
        "backend_fails = false, or name who holds the guest",
        of_expectation=True,
    ),
    Rule(
        "interface.mac",
        lambda case: bool(int(case.interface.mac[:2], 16) & 1),
        "this is a multicast address",
        "an even first byte, e.g. 52:54:00:…",
    ),
)
