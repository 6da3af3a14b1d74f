"""Management devices of the vDPA bus: which of those that a host provides a device is made on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrate.backends.vdpa import bus as vdpa_bus
from migrate.backends.vdpa.bus import Offer
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.model import Interface

if TYPE_CHECKING:
    from migrate.lab.api import Host

SUSPENDING = frozenset({"vdpasim_net", "mlx5_core", "snet-vdpa-driver"})
"""Drivers with a ``suspend`` operation, linux 6.12: drivers/vdpa. The tool does not tell: it would
be VHOST_BACKEND_F_SUSPEND of an opened device. vp_vdpa, ifcvf, pds, octep have none."""

NO_NETWORK: Mapping[str, str] = {
    "vduse": "QEMU blocks its migration: vdpa svq does not work with features 0x40 (gso)",
    "vdpasim_net": "it returns what the guest sends and has no peer: it must be asked for by name",
}
"""Kinds that ``auto`` does not take, and why not."""


@dataclass(frozen=True, slots=True)
class ManagementDevice:
    """A management device that the host provides, and the kernel driver behind it."""

    name: str
    driver: str

    @property
    def kind(self) -> str:
        """As ``interface.vdpa.device`` names it, or ``vduse``."""
        if "/" not in self.name:
            return self.name
        return "vp_vdpa" if self.driver in ("vp-vdpa", "virtio-pci", "") else "vendor"

    @property
    def driver_name(self) -> str:
        """The kernel driver of a vendor's device, else its kind."""
        return self.driver if self.kind == "vendor" else self.kind

    @property
    def pci(self) -> str | None:
        """Its address, if it is a PCI device."""
        bus, _, address = self.name.partition("/")
        return address if bus == "pci" else None


def choose_device(host: Host, interface: Interface, deadline: Deadline) -> ManagementDevice:
    """The first of the wanted kind; ``auto``: the first with a network behind it."""
    devices = [_management_device(host, name, deadline) for name in host.resources.vdpa]
    wanted = interface.vdpa.device
    for device in devices:
        if device.kind == wanted or (wanted == "auto" and device.kind not in NO_NETWORK):
            return device
    lent = ", ".join(f"{device.name} ({device.kind})" for device in devices) or "none"
    why = [NO_NETWORK[device.kind] for device in devices if device.kind in NO_NETWORK]
    raise HostError(
        f"choose a vDPA management device, interface.vdpa.device = {wanted!r}",
        host=host.name,
        said="; ".join([f"the host provides {lent}", *why]),
        remedy="another interface.vdpa.device, or name a management device in the lab file",
    )


def _management_device(host: Host, name: str, deadline: Deadline) -> ManagementDevice:
    bus, slash, device = name.partition("/")
    driver = vdpa_bus.driver_of(host, bus, device, deadline) if slash else name
    # A driver of subfunctions is named after its module: mlx5_core.sf.
    return ManagementDevice(name, driver.partition(".")[0])


@contextmanager
def management_offer(host: Host, device: ManagementDevice, deadline: Deadline) -> Iterator[Offer]:
    """What the device offers; a PCI device bound to a virtio driver is rebound to vp-vdpa while
    the block runs."""
    with ExitStack() as stack:
        for module in ("vhost_vdpa", *(["vp_vdpa"] if device.kind == "vp_vdpa" else [])):
            # Built in, or loaded by hand, there is no file to load: what counts is seen below.
            host.run(["modprobe", "--quiet", module], deadline, check=False)
        if device.kind == "vp_vdpa" and device.pci:
            stack.enter_context(vdpa_bus.keep_link(host, device.pci, deadline))
            stack.enter_context(vdpa_bus.bind(host, "pci", device.pci, "vp-vdpa", deadline))
        offers = vdpa_bus.offers(host, deadline)
        if device.name not in offers:
            raise HostError(
                f"use {device.name}",
                host=host.name,
                said="it is no vDPA management device for networks; there are: "
                + (", ".join(offers) or "none"),
                remedy="load its driver; `vdpa mgmtdev show` lists what can be named in the lab",
            )
        yield offers[device.name]
