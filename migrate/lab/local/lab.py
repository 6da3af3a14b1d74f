"""The local lab: hosts made of namespaces on this machine, and a fabric between them.

Every host has a network, mount, UTS, IPC and PID namespace; see :mod:`migrate.lab.namespaces`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from migrate.clock import Deadline
from migrate.drivers.terminal import AT_TERMINAL, run_at_terminal, run_attached
from migrate.errors import HostError
from migrate.lab import namespaces, state
from migrate.lab.config import cache_folder, state_folder
from migrate.lab.fabric import (
    PREFIX,
    FabricLab,
    bridge,
    ip_batch,
    make_fabric,
    make_namespace,
)
from migrate.lab.fabric_kind import FabricKind
from migrate.lab.local.config import LocalConfig
from migrate.lab.namespaces import NamespaceHost
from migrate.lab.resources import DATA_BRIDGE, MIGRATION_LINK, OVS_UPLINK
from migrate.lab.rootfs import ensure_root, may_fail_today
from migrate.lab.state import LabRecord
from migrate.model import Capability, HostFacts
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

LIBVIRT_S = 20.0
"""For libvirt to come up on all hosts."""
PTMX = "/dev/pts/ptmx"
"""What makes terminals of a host's devpts (enter_root.sh)."""


class LocalLab(FabricLab):
    """A local lab that is up."""

    kind = "local"
    cpu_model: str | None = None
    patience = 1.0

    def __init__(self, record: LabRecord) -> None:
        self.hosts: Mapping[str, NamespaceHost] = {
            host.name: NamespaceHost(
                host.name, host.root, host.address, host.init.pid if host.init else 0
            )
            for host in record.hosts
        }
        self.places = self.hosts
        super().__init__(record)

    def interact(self, host: str, argv: Sequence[str], *, terminal: bool) -> int:
        """See Lab; the terminal is of the host's own devpts."""
        place = self.hosts[host]
        if not terminal:
            return run_attached(place.enter(argv))
        there = place.enter([*AT_TERMINAL, *argv], os.environ.get("TERM", "dumb"))
        return run_at_terminal(there, place.file(PTMX))

    def data_ports(self, host: str) -> tuple[str, ...]:
        """For taps, and for OVS-DPDK."""
        return f"{host}-data", f"{host}-ovs"

    def replace_dead_hosts(self) -> tuple[str, ...]:
        """None: a host that ended takes the lab with it, and the next `up` makes it anew."""
        return ()

    def is_healthy(self) -> bool:
        """Whether all of it still runs."""
        alive = (host.init is not None and host.init.alive() for host in self.record.hosts)
        return super().is_healthy() and all(alive)

    def close(self) -> None:
        """Nothing: connections to its hosts are made anew each time."""


def plan(config: LocalConfig) -> LabRecord:
    """Have the roots that it takes; nothing of the lab is made yet.

    A host whose root can't be made today is left out, if two others are there. Raises HostError.
    """
    roots: dict[str, Path] = {}
    refused: dict[str, HostError] = {}
    for name in dict.fromkeys(host.root for host in config.hosts.values()):
        try:
            roots[name] = ensure_root(name, cache_folder())
        except HostError as error:
            if not may_fail_today(name):
                raise
            refused[name] = error
    record = state.new_record(config, roots, f"mlab-{config.name}-{{}}", state_folder())
    if len(record.hosts) < 2:
        raise next(iter(refused.values()))
    missing = [(name, host.root) for name, host in config.hosts.items() if host.root in refused]
    return record.model_copy(
        update={"missing": tuple(_left_out(name, root, refused[root]) for name, root in missing)}
    )


def _left_out(name: str, root: str, error: HostError) -> HostFacts:
    reason = f"the root {root} can't be made today: {error.said}"
    LOGGER.info("host %s is left out: %s", name, reason)
    remedy = "another day: packages of this suite come one after the other; or a mirror in reach"
    capability = Capability(name="root", able=False, reason=reason, remedy=remedy)
    return HostFacts(host=name, root=root, kernel="", versions={}, capabilities=(capability,))


def make(config: LocalConfig, record: LabRecord) -> LabRecord:
    """Make all of it; the journal names each step before it is done."""
    pages = sum(host.huge_pages for host in config.hosts.values())
    lent = state.borrow_huge_pages(state_folder(), config.name, pages)
    note = "" if lent == pages else f"{pages} huge pages of 2 MiB could not be reserved"
    LOGGER.info("making namespaces and the fabric")
    _network(record)
    LOGGER.info("starting the hosts")
    shared = namespaces.mounts(record.share)
    hosts = tuple(namespaces.start_host(host, record, shared) for host in record.hosts)
    record = record.model_copy(update={"hosts": hosts, "huge_pages": lent, "note": note})
    state.write_record(record)
    LOGGER.info("starting libvirt on each host")
    deadline = Deadline.after(LIBVIRT_S)
    with ThreadPoolExecutor() as pool, waiting("libvirt to start on each host", deadline):
        list(pool.map(lambda host: host.start_libvirt(deadline), LocalLab(record).hosts.values()))
    return record


def _network(record: LabRecord) -> None:
    deadline = Deadline.after(20)
    make_fabric(record, (DATA_BRIDGE, "mig"), deadline)
    uplinks = (("data", DATA_BRIDGE), ("ovs", DATA_BRIDGE), ("mig", "mig"))
    for host in record.hosts:
        make_namespace(host.namespace, deadline, MIGRATION_LINK)
        ports = [
            line
            for uplink, network in uplinks
            for line in (
                f"link add {host.name}-{uplink} type veth peer up-{uplink} netns {host.namespace}",
                f"link set {host.name}-{uplink} master {network} up",
            )
        ]
        ip_batch(record.fabric, ports, deadline)
        ip_batch(
            host.namespace,
            [
                *bridge(DATA_BRIDGE),
                f"link set up-data master {DATA_BRIDGE} up",
                f"link set {OVS_UPLINK} arp off up",
                f"addr add {host.address}/{PREFIX} dev {MIGRATION_LINK}",
                f"link set {MIGRATION_LINK} up",
            ],
            deadline,
        )


KIND = FabricKind(plan, make, LocalLab)
