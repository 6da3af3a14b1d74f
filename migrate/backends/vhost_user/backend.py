"""``vhost-user``: the guest's rings are served by Open vSwitch with DPDK, a process of the host.

QEMU listens (``mode='server'``), OVS connects (``dpdkvhostuserclient``), so that either may be
restarted: https://docs.openvswitch.org/en/latest/topics/dpdk/vhost-user/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from migrate.backends.base import Backend, BackendMode
from migrate.backends.vhost_user import ovs
from migrate.backends.vhost_user.capabilities import INSPECTION
from migrate.backends.vhost_user.rules import RULES
from migrate.backends.xml import Rewrite, source_rewrite
from migrate.clock import Deadline, Offset
from migrate.formats.log_events import parse_ovs_log
from migrate.model import Event, Interface

if TYPE_CHECKING:
    from migrate.lab.api import Host

SOCKET = f"{ovs.RUN}/{ovs.PORT}.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class VhostUserBackend(Backend):
    """A socket on which QEMU listens; what connects to it reads the guest's memory."""

    shared_memory: bool = True
    socket: str


class VhostUser(BackendMode[VhostUserBackend]):
    """One port of the host's OVS for the guest."""

    needs = ("huge-pages", "ovs-dpdk", "vhost-user-guest")
    inspections = (INSPECTION,)
    logs = MappingProxyType({"ovs": ovs.LOG})
    processes = MappingProxyType(ovs.PROCESSES)
    leftovers = (ovs.PORT_LEFTOVER,)
    rules = RULES
    has_process = True

    @contextmanager
    def create(
        self, host: Host, interface: Interface, deadline: Deadline
    ) -> Iterator[VhostUserBackend]:
        """A port that connects to the guest's socket, on a bridge with the host's uplink."""
        del interface
        if host.resources.ovs_bridge is None:
            ovs.ensure_switch(host, deadline)
        with ovs.client_port(host, SOCKET, deadline):
            yield VhostUserBackend(socket=SOCKET)

    def target_rewrites(
        self, source: VhostUserBackend, target: VhostUserBackend
    ) -> tuple[Rewrite, ...]:
        """Sockets may have other paths on other hosts."""
        return source_rewrite("vhostuser", "path", source.socket, target.socket)

    def log_events(self, logs: Mapping[str, str], host: str, wall: Offset) -> Iterable[Event]:
        """Messages of the protocol, states of queues and the port's readiness."""
        return parse_ovs_log(logs.get("ovs", ""), host, wall)

    def crash(self, host: Host, deadline: Deadline) -> None:
        """End the switch; the next guest that needs it starts it again."""
        ovs.kill_switch(host, deadline)
