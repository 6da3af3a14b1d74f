"""``hostdev``: a VF of the host is the guest's own device, by VFIO.

No saved state can hold a VF, and no domain that has one can be saved: the guest is started without
it, and it is plugged in once the guest runs. A domain with a plain VF can't be migrated either, and
libvirt says so; it can with a VFIO driver that carries the device's state, which is tried wherever
the VF got such a driver (see :mod:`migrate.backends.vf_allocation`). The method ``reattach`` takes
it out, moves the guest and plugs the target's in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree as ET

from migrate.backends.sriov import Function
from migrate.backends.vf_allocation import leased
from migrate.backends.xml import Rewrite, device_xml
from migrate.clock import Deadline
from migrate.lab.api import Host
from migrate.model import Interface

SPARE_PORTS = 4
"""PCIe root ports: one for the VF, and three for what else the guest has on PCI."""

VF = "ua-vf"
"""Its name in the domain; libvirt wants the "ua-" of a name that isn't its own."""


class Hostdev:
    """A VF, and nothing else."""

    logs: Mapping[str, str] = MappingProxyType({})
    needs = ("sriov", "iommu")

    @contextmanager
    def provide(
        self, host: Host, interface: Interface, deadline: Deadline
    ) -> Iterator[Mapping[str, Any]]:
        """A VF that nobody else has."""
        with leased(host, interface, deadline) as vf:
            yield {**of_vf(vf), "spare_ports": SPARE_PORTS}

    def describe(self, interface: Interface, backend: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ports for what comes later."""
        del interface
        return backend

    def plugs(self, interface: Interface, backend: Mapping[str, Any]) -> str | None:
        """The VF."""
        return device_xml("plug-vf.xml.j2", interface, backend)

    def complaints(self, log: str) -> tuple[str, ...]:
        """None that are known."""
        del log
        return ()

    def adapt(self, source: Mapping[str, Any], target: Mapping[str, Any]) -> tuple[Rewrite, ...]:
        """The target's VF has an address of its own."""
        return moved_vf(source["vf"], target["vf"])


def of_vf(vf: Function) -> dict[str, Any]:
    """What a device's template must know of the VF."""
    return {"vf": pci(vf.address), "is_told": vf.is_told, "alias": VF}


def pci(address: str) -> dict[str, str]:
    """``0000:01:10.0`` as libvirt's ``<address type='pci'>`` has it, e.g. ``bus`` is ``0x01``."""
    parts = re.fullmatch(r"(\w+):(\w+):(\w+)\.(\w+)", address)
    if parts is None:
        raise ValueError(f"{address} is no PCI address")
    keys = ("domain", "bus", "slot", "function")
    return {key: f"0x{part}" for key, part in zip(keys, parts.groups(), strict=True)}


def moved_vf(source: Mapping[str, str], target: Mapping[str, str]) -> tuple[Rewrite, ...]:
    """What makes the source's VF the target's in a domain's XML; none if they are one."""
    if source == target:
        return ()

    def move(root: ET.Element) -> None:
        of_interfaces = root.iterfind("./devices/interface[@type='hostdev']/source/address")
        for address in [*of_interfaces, *root.iterfind("./devices/hostdev/source/address")]:
            if all(address.get(key) == value for key, value in source.items()):
                address.attrib.update(target)

    return (move,)
