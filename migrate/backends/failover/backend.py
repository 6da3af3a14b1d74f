"""``failover``: a VF carries the traffic, and a virtio device stands by while the guest is moved.

QEMU unplugs the VF when a migration begins, which then goes on as one of a virtio guest, and plugs
the target's in when the guest runs there. In the guest net_failover makes one interface of the two.
See https://www.qemu.org/docs/master/system/virtio-net-failover.html, and ``<teaming>`` in
https://libvirt.org/formatdomain.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrate.backends.base import Backend, BackendMode
from migrate.backends.failover.rules import RULES
from migrate.backends.sriov.allocation import LEFTOVERS, NoFreeVfError, lease_vf
from migrate.backends.sriov.capabilities import INSPECTION
from migrate.backends.sriov.functions import Vf
from migrate.backends.sriov.passthrough import SPARE_PORTS, GuestVf, vf_rewrite, vf_xml
from migrate.backends.virtio.backend import data_bridge
from migrate.backends.xml import Rewrite, source_rewrite
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.model import Interface

if TYPE_CHECKING:
    from migrate.lab.api import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverBackend(Backend):
    """A bridge for the standby, and the VF, where there is one."""

    spare_ports: int = SPARE_PORTS
    has_standby: bool = True
    bridge: str
    standby: str = "ua-standby"
    """The virtio device's alias in the domain."""
    vf: GuestVf | None


class Failover(BackendMode[FailoverBackend]):
    """The standby on the data bridge, and a VF that is plugged in once the guest runs."""

    needs = ("tun", "sriov", "iommu")
    inspections = (INSPECTION,)
    leftovers = LEFTOVERS
    rules = RULES
    phases = frozenset({"wait-unplug", "standby", "replug"})
    has_vf = True

    @contextmanager
    def create(
        self, host: Host, interface: Interface, deadline: Deadline
    ) -> Iterator[FailoverBackend]:
        """Bridge and VF. Without a free VF the guest may come here all the same, on its standby:
        then the backend has a ``missing_primary``."""
        with ExitStack() as stack:
            bridge = data_bridge(host, deadline)
            try:
                vf = stack.enter_context(lease_vf(host, interface, deadline))
            except NoFreeVfError as error:
                why = f"host {host.name} has no VF for the guest: {error.said}"
                backend = FailoverBackend(
                    bridge=bridge,
                    vf=None,
                    missing_primary=error,
                    notes=(f"{why}; it is on its standby there",),
                )
            else:
                backend = FailoverBackend(bridge=bridge, vf=_primary(host, vf))
            yield backend

    def hotplug_xml(self, interface: Interface, backend: FailoverBackend) -> str | None:
        """The VF, where there is one."""
        return vf_xml(interface, backend.vf, backend.standby) if backend.vf else None

    def target_rewrites(
        self, source: FailoverBackend, target: FailoverBackend
    ) -> tuple[Rewrite, ...]:
        """Bridge and VF have other names there."""
        bridge = source_rewrite("bridge", "bridge", source.bridge, target.bridge)
        if source.vf is None or target.vf is None:
            return bridge
        return (*bridge, *vf_rewrite(source.vf, target.vf))


def _primary(host: Host, vf: Vf) -> GuestVf:
    """The VF as the guest's primary; HostError if Linux would not take it.

    Source: linux drivers/net/net_failover.c, net_failover_slave_pre_register.
    """
    if vf.driver == "virtio-pci":
        raise HostError(
            f"use {vf.address} as a primary",
            host=host.name,
            said="it is a virtio device, and Linux takes none as the primary of a failover pair: "
            "a primary's parent has to be a PCI device",
            remedy="a card with VFs of its own kind (nic = 'igb' in a nested lab), or "
            "mode = 'hostdev'",
        )
    return GuestVf.of(vf)
