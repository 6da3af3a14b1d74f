"""What a scenario may not ask for, though each value by itself is right.

Each rule names the key to blame, tells when it is broken, and says what would be right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from migrate.formats.virtio_features import NAMES
from migrate.model import Case, PhaseName, VirtualFunction


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of nonsense; ``broken`` is true of a case that has it."""

    key: str
    broken: Callable[[Case], bool]
    said: str
    remedy: str


def has_postcopy(case: Case) -> bool:
    """Whether the move may end as a post-copy."""
    return case.policy.method == "postcopy" or case.policy.on_timeout == "postcopy"


def phases_of(case: Case) -> frozenset[PhaseName]:
    """The phases that a move by this policy can have."""
    never: set[PhaseName] = set() if has_postcopy(case) else {"postcopy"}
    if case.interface.mode != "failover":
        never |= {"wait-unplug", "standby", "replug"}
    if case.policy.method == "save-restore":
        never |= {"precopy", "pre-switchover", "postcopy"}
    every: tuple[PhaseName, ...] = (
        *("setup", "wait-unplug", "standby", "precopy", "pre-switchover", "stopped"),
        *("device", "postcopy", "resumed", "announce", "replug", "settled"),
    )
    return frozenset(every) - never


def _saved(case: Case) -> bool:
    return case.policy.method == "save-restore"


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
        lambda case: case.policy.method == "reattach" and case.interface.mode != "hostdev",
        "only mode hostdev is taken out and put back: the others move with their device",
        "mode = 'hostdev', or another method",
    ),
    Rule(
        "policy.method",
        lambda case: case.interface.mode == "hostdev" and has_postcopy(case),
        "post-copy does not work with mode hostdev: a device's DMA can't wait for a missing page",
        "method = 'precopy' and on_timeout = 'abort' or 'suspend', or another mode",
    ),
    Rule(
        "policy.method",
        lambda case: _saved(case) and case.interface.mode in ("hostdev", "failover"),
        "a domain that has a VF can't be saved: no file holds the state of a device",
        "another method, or another mode",
    ),
    Rule(
        "policy.parallel_connections",
        lambda case: case.policy.parallel_connections is not None and has_postcopy(case),
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
        "save-restore stops the guest first: there is no convergence, compression or timeout's way",
        "leave out auto_converge, compression, parallel_connections and on_timeout",
    ),
    Rule(
        "policy.postcopy_bandwidth_mib_s",
        lambda case: case.policy.postcopy_bandwidth_mib_s is not None and not has_postcopy(case),
        "a bandwidth for post-copy, but no post-copy",
        "method = 'postcopy' or on_timeout = 'postcopy', or leave it out",
    ),
    Rule(
        "policy.abort_at",
        lambda case: (
            case.policy.abort_at in ("postcopy", "resumed", "announce", "replug", "settled")
            or (case.policy.abort_at is not None and case.policy.abort_at not in phases_of(case))
        ),
        "at this phase there is nothing that could be aborted",
        "a phase before the guest runs on the target that this method has",
    ),
    Rule(
        "policy.abort_at",
        lambda case: case.policy.abort_at is not None and case.expect.outcome == "completed",
        "aborted on purpose, but expected to be completed",
        "expect.outcome = 'aborted' and expect.held_by = ['source']",
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
    ),
    Rule(
        "expect.held_by",
        lambda case: len(set(case.expect.held_by)) != len(case.expect.held_by),
        "a side is there twice",
        "name each side once; [] is no host",
    ),
    Rule(
        "faults",
        lambda case: any(fault.at not in phases_of(case) for fault in case.faults),
        "a fault waits for a phase that this method never has",
        "another `at`, or another policy.method",
    ),
    Rule(
        "expect.memory",
        lambda case: case.expect.memory and case.workload.dirty_mib == 0,
        "memory can't be judged if the workload writes none",
        "workload.dirty_mib of 1 or more, or expect.memory = false",
    ),
    Rule(
        "expect.tcp",
        lambda case: case.expect.tcp and case.workload.tcp_connections == 0,
        "connections can't be judged if the workload opens none",
        "workload.tcp_connections of 1 or more, or expect.tcp = false",
    ),
    Rule(
        "workload.dirty_mib",
        lambda case: case.workload.dirty_mib > case.guest.memory_mib - 64,
        "the guest has not that much memory to write to",
        "at most guest.memory_mib - 64",
    ),
    Rule(
        "interface.vf",
        lambda case: (
            case.interface.vf != VirtualFunction()
            and case.interface.mode not in ("hostdev", "failover")
        ),
        "options of a VF, but no VF",
        "mode = 'hostdev' or 'failover', or leave them out",
    ),
    Rule(
        "interface.mode",
        lambda case: (
            case.interface.mode == "hostdev"
            and (
                case.interface.ring != "split"
                or case.interface.queues != 1
                or case.interface.mtu != 1500
                or not case.interface.offloads
            )
        ),
        "rings, queues, MTU and offloads of a VF are its driver's own, in the guest",
        "leave out ring, queues, mtu and offloads, or another mode",
    ),
    Rule(
        "guest.machine",
        lambda case: case.interface.mode == "failover" and case.guest.machine != "q35",
        "QEMU takes a failover pair's primary on PCI Express only",
        "guest.machine = 'q35'",
    ),
    Rule(
        "interface.mtu",
        lambda case: case.interface.mode == "vhost-user" and case.interface.mtu != 1500,
        "libvirt sets the MTU on a link of the host, too, and a vhost-user port has none",
        "mtu = 1500, or mode = 'virtio'",
    ),
    Rule(
        "interface.mtu",
        lambda case: case.interface.mode == "vdpa" and case.interface.mtu != 1500,
        "libvirt sets no MTU on an interface of type vdpa",
        "mtu = 1500, or mode = 'virtio'",
    ),
    Rule(
        "interface.vdpa.features_off",
        lambda case: not set(case.interface.vdpa.features_off) <= set(NAMES.values()),
        "this is no feature of a virtio network device",
        "names in small letters, as virtio has them: " + ", ".join(NAMES.values()),
    ),
    Rule(
        "interface.vdpa.shadow",
        lambda case: (
            case.interface.mode == "vdpa"
            and case.interface.vdpa.shadow == "on"
            and case.interface.ring == "packed"
        ),
        "QEMU's shadow virtqueues are split rings",
        "ring = 'split'",
    ),
    Rule(
        "expect.backend_fails",
        lambda case: case.expect.backend_fails and not case.expect.held_by,
        "a guest that is gone has no interface that could be dead",
        "backend_fails = false, or name who holds the guest",
    ),
    Rule(
        "interface.mac",
        lambda case: bool(int(case.interface.mac[:2], 16) & 1),
        "this is a multicast address",
        "an even first byte, e.g. 52:54:00:…",
    ),
)
