"""``failover``: a VF carries the traffic, and a virtio device stands by while the guest is moved.

QEMU unplugs the VF when a migration begins, which then goes on as one of a virtio guest, and plugs
the target's in when the guest runs there. In the guest net_failover makes one interface of the two.
See https://www.qemu.org/docs/master/system/virtio-net-failover.html, and ``<teaming>`` in
https://libvirt.org/formatdomain.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

from migrate.backends.hostdev.backend import SPARE_PORTS, moved_vf, of_vf
from migrate.backends.sriov import Function
from migrate.backends.vf_allocation import NoFunctionError, leased
from migrate.backends.virtio.backend import Virtio
from migrate.backends.xml import Rewrite, device_xml, moved_source
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.lab.api import Host
from migrate.model import Interface

STANDBY = "ua-standby"
"""The virtio device's name in the domain."""


class Failover:
    """The standby on the data bridge, and a VF that is plugged in once the guest runs."""

    logs: Mapping[str, str] = MappingProxyType({})
    needs = ("tun", "sriov", "iommu")

    @contextmanager
    def provide(
        self, host: Host, interface: Interface, deadline: Deadline
    ) -> Iterator[Mapping[str, Any]]:
        """Bridge and VF. Without a free VF the guest may come here all the same, on its standby:
        ``vf`` is None then, and ``lacks`` is why."""
        with ExitStack() as stack:
            backend = dict(stack.enter_context(Virtio().provide(host, interface, deadline)))
            backend |= {"standby": STANDBY, "spare_ports": SPARE_PORTS, "vf": None}
            try:
                vf = stack.enter_context(leased(host, interface, deadline))
                if vf.driver == "virtio-pci":
                    raise _no_primary(host, vf)
                backend |= of_vf(vf)
            except NoFunctionError as error:
                alone = f"host {host.name} has no VF for the guest: {error.said}"
                backend |= {"lacks": error, "notes": (f"{alone}; it is on its standby there",)}
            yield backend

    def describe(self, interface: Interface, backend: Mapping[str, Any]) -> Mapping[str, Any]:
        """The standby. Where a guest begins it needs a VF: NoFunctionError."""
        del interface
        if backend["vf"] is None:
            lacks: NoFunctionError = backend["lacks"]
            raise lacks
        return backend

    def plugs(self, interface: Interface, backend: Mapping[str, Any]) -> str | None:
        """The VF, where there is one."""
        if backend["vf"] is None:
            return None
        return device_xml("plug-vf.xml.j2", interface, backend)

    def complaints(self, log: str) -> tuple[str, ...]:
        """None that are known."""
        del log
        return ()

    def adapt(self, source: Mapping[str, Any], target: Mapping[str, Any]) -> tuple[Rewrite, ...]:
        """Bridge and VF have other names there."""
        bridge = moved_source("bridge", "bridge", source["bridge"], target["bridge"])
        if source["vf"] is None or target["vf"] is None:
            return bridge
        return (*bridge, *moved_vf(source["vf"], target["vf"]))


def _no_primary(host: Host, vf: Function) -> HostError:
    """Source: linux drivers/net/net_failover.c, net_failover_slave_pre_register."""
    return HostError(
        f"use {vf.address} as a primary",
        host=host.name,
        said="it is a virtio device, and Linux takes none as the primary of a failover pair: "
        "a primary's parent has to be a PCI device",
        remedy="a card with VFs of its own kind (nic = 'igb' in a nested lab), or mode = 'hostdev'",
    )
