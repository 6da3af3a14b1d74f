"""A VF as a device of the guest, by VFIO: it is plugged in once the guest runs.

No saved state can hold a VF, and no domain that has one can be saved.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from migrate.backends.sriov.functions import Vf
from migrate.backends.xml import Rewrite, template
from migrate.model import Interface

SPARE_PORTS = 4
"""PCIe root ports: one for the VF, and three for what else the guest has on PCI."""

ALIAS = "ua-vf"
"""Its name in the domain; libvirt wants the "ua-" of a name that isn't its own."""


@dataclass(frozen=True, slots=True)
class PciAddress:
    """As libvirt's ``<address type='pci'>`` has it: ``0000:01:10.0`` has the bus ``0x01``."""

    domain: str
    bus: str
    slot: str
    function: str

    @classmethod
    def parse(cls, text: str) -> PciAddress:
        """``0000:01:10.0``; ValueError if it is none."""
        parts = re.fullmatch(r"(\w+):(\w+):(\w+)\.(\w+)", text)
        if parts is None:
            raise ValueError(f"{text} is no PCI address")
        return cls(*(f"0x{part}" for part in parts.groups()))


@dataclass(frozen=True, slots=True)
class GuestVf:
    """What a device's XML must say of a VF."""

    address: PciAddress
    has_settable_mac: bool
    """Whether libvirt can tell the PF the VF's MAC; if not, it is a plain PCI device."""

    @classmethod
    def of(cls, vf: Vf) -> GuestVf:
        """The VF that was leased."""
        return cls(PciAddress.parse(vf.address), vf.has_settable_mac)


def vf_xml(interface: Interface, vf: GuestVf, standby: str | None = None) -> str:
    """The device to be plugged in; ``standby`` is the alias of the virtio device beside it."""
    return template("plug-vf.xml.j2").render(
        interface=interface, vf=vf, standby=standby, alias=ALIAS
    )


def vf_rewrite(source: GuestVf, target: GuestVf) -> tuple[Rewrite, ...]:
    """What makes the source's VF the target's in a domain's XML; nothing if they are the same."""
    if source.address == target.address:
        return ()
    old, new = _attributes(source.address), _attributes(target.address)

    def move(root: ET.Element) -> None:
        of_interfaces = root.iterfind("./devices/interface[@type='hostdev']/source/address")
        for address in [*of_interfaces, *root.iterfind("./devices/hostdev/source/address")]:
            if old.items() <= address.attrib.items():
                address.attrib.update(new)

    return (move,)


def _attributes(address: PciAddress) -> dict[str, str]:
    return {
        "domain": address.domain,
        "bus": address.bus,
        "slot": address.slot,
        "function": address.function,
    }
