"""``vdpa``: a device of the kernel's vDPA bus moves the packets; QEMU has it by vhost-vdpa.

The device is made on a management device that the host lends, and goes with its block. How QEMU
knows the state of its rings in a migration is one of two ways: the device can be suspended and
tells it, or QEMU stands between guest and device (shadow virtqueues, ``x-svq``). libvirt has no
switch for the second, so the guest's emulator is then a script that adds it. Sources: QEMU
net/vhost-vdpa.c; https://www.redhat.com/en/blog/hands-vdpa-what-do-you-do-when-you-aint-got-hardware
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree as ET

from migrate.backends.vdpa import bus as vdpa_bus
from migrate.backends.vdpa.bus import Management
from migrate.backends.xml import Rewrite, moved_source
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.formats.virtio_features import feature_mask, not_shadowable
from migrate.lab.api import Host
from migrate.model import Interface

EMULATOR = "/usr/bin/qemu-system-x86_64"
SHADOW_EMULATOR = "/usr/local/bin/qemu-system-x86_64-shadow"
"""On each host, always the same: libvirt keeps what an emulator can do by its path."""
SHADOW_SOURCE = Path(__file__).with_name("qemu-shadow.sh")
"""The text of the same, to be put on a host or into its image."""

SUSPENDING = frozenset({"vdpasim_net", "mlx5_core", "snet-vdpa-driver"})
"""Drivers with a ``suspend`` operation, linux 6.12: drivers/vdpa. The tool does not tell: it would
be VHOST_BACKEND_F_SUSPEND of an opened device. vp_vdpa, ifcvf, pds, octep have none."""

NO_NETWORK: Mapping[str, str] = {
    "vduse": "QEMU blocks its migration: vdpa svq does not work with features 0x40 (gso)",
    "vdpasim_net": "it returns what the guest sends and has no peer: it must be asked for by name",
}
"""Sorts that ``auto`` does not take, and why not."""


@dataclass(frozen=True, slots=True)
class Place:
    """A management device that a host lends, and the kernel driver behind it."""

    name: str
    driver: str

    @property
    def sort(self) -> str:
        """As ``interface.vdpa.device`` names it, or ``vduse``."""
        if "/" not in self.name:
            return self.name
        return "vp_vdpa" if self.driver in ("vp-vdpa", "virtio-pci", "") else "vendor"

    @property
    def maker(self) -> str:
        """What makes the device, in a word: the driver of a vendor's, else the sort."""
        return self.driver if self.sort == "vendor" else self.sort

    @property
    def pci(self) -> str | None:
        """The address of a PCI device."""
        bus, _, address = self.name.partition("/")
        return address if bus == "pci" else None


class Vdpa:
    """One vDPA device for the guest."""

    logs: Mapping[str, str] = MappingProxyType({})
    needs = ("vhost-vdpa",)

    @contextmanager
    def provide(
        self, host: Host, interface: Interface, deadline: Deadline
    ) -> Iterator[Mapping[str, Any]]:
        """A device that fits the interface, and QEMU's script where its rings are shadowed."""
        with ExitStack() as stack:
            vdpa_bus.remove(host)  # of a controller that was killed
            place = chosen(host, interface, deadline)
            offer = stack.enter_context(_management(host, place, deadline))
            features = offer.features - set(interface.vdpa.features_off)
            _must_fit(host, interface, offer, features)
            settings = _settings(interface, offer, features)
            node = stack.enter_context(vdpa_bus.added(host, offer.name, settings, deadline))
            _must_be(host, interface, vdpa_bus.config(host, vdpa_bus.NAME, deadline))
            shadow, how = shadowed(interface, place)
            if shadow:
                _put_script(host, deadline)
            yield {
                "device": node,
                "emulator": SHADOW_EMULATOR if shadow else EMULATOR,
                "iommu": "access_platform" in features,
                "features": features,
                "saved_with": f"{feature_mask(features):#x}",
                "savable": _savable(place, shadow, features),
                "loops": place.sort == "vdpasim_net",
                "notes": (f"{host.name}: {place.name} ({place.maker}), {how}",),
            }

    def describe(self, interface: Interface, backend: Mapping[str, Any]) -> Mapping[str, Any]:
        """The device's node, the emulator, and whether addresses go through the IOMMU."""
        del interface
        return backend

    def plugs(self, interface: Interface, backend: Mapping[str, Any]) -> str | None:
        """Nothing."""
        del interface, backend
        return None

    def complaints(self, log: str) -> tuple[str, ...]:
        """That QEMU could not start the device, or read or set the state of its rings.

        QEMU goes on without: packets then end in a dummy backend, and nobody is told.
        """
        lines = (_STAMP.sub("", line) for line in log.splitlines() if _FAILED.search(line))
        return tuple(dict.fromkeys(lines))

    def adapt(self, source: Mapping[str, Any], target: Mapping[str, Any]) -> tuple[Rewrite, ...]:
        """Nodes have other numbers on other hosts. HostError if features differ: said before QEMU
        does, when the guest's state is loaded."""
        if lost := source["features"] - target["features"]:
            listed = sorted(lost)
            raise HostError(
                "give the guest the same device on the target",
                said=f"the source's vDPA device offers {', '.join(listed)}, the target's does not",
                remedy=f"interface.vdpa.features_off = {listed}",
            )
        moves = moved_source("vdpa", "dev", source["device"], target["device"])
        if source["emulator"] == target["emulator"]:
            return moves

        def other_emulator(root: ET.Element) -> None:
            for element in root.iterfind("./devices/emulator"):
                element.text = target["emulator"]

        return (*moves, other_emulator)


_STAMP = re.compile(r"^\S+Z (?=qemu)")
_FAILED = re.compile(
    r"falling back on userspace virtio"
    r"|vhost_set_vring_\w+ failed"
    r"|vhost VQ \d+ ring restore failed"
    r"|vhost vdpa map fail"
)
"""QEMU: hw/net/virtio-net.c, hw/virtio/vhost.c, hw/virtio/vhost-vdpa.c."""


def chosen(host: Host, interface: Interface, deadline: Deadline) -> Place:
    """The first place of the wanted sort; ``auto``: the first with a network behind it."""
    places = [_place(host, name, deadline) for name in host.resources.vdpa]
    wanted = interface.vdpa.device
    for place in places:
        if place.sort == wanted or (wanted == "auto" and place.sort not in NO_NETWORK):
            return place
    lent = ", ".join(f"{place.name} ({place.sort})" for place in places) or "none"
    why = [NO_NETWORK[place.sort] for place in places if place.sort in NO_NETWORK]
    raise HostError(
        f"choose a vDPA management device, interface.vdpa.device = {wanted!r}",
        host=host.name,
        said="; ".join([f"the host lends {lent}", *why]),
        remedy="another interface.vdpa.device, or name a management device in the lab file",
    )


def _place(host: Host, name: str, deadline: Deadline) -> Place:
    bus, slash, device = name.partition("/")
    driver = vdpa_bus.driver_of(host, bus, device, deadline) if slash else name
    # A driver of subfunctions is named after its module: mlx5_core.sf.
    return Place(name, driver.partition(".")[0])


def shadowed(interface: Interface, place: Place) -> tuple[bool, str]:
    """Whether QEMU stands between guest and device all the time, and the same in words."""
    wanted = interface.vdpa.shadow
    able = place.driver in SUSPENDING
    if wanted == "on":
        return True, "shadow virtqueues all the time (x-svq), as asked"
    if wanted == "off" and not able:
        return False, "rings of its own, as asked, though it can't be suspended to tell their state"
    if able:
        return False, "rings of its own; shadowed from the start of a migration, then suspended"
    return True, "shadow virtqueues all the time (x-svq): it can't be suspended to tell its rings"


def _savable(place: Place, shadow: bool, features: frozenset[str]) -> bool:
    """Whether a saved state of the guest can be had, and be gone on with."""
    return shadow or (place.driver in SUSPENDING and not not_shadowable(features))


@contextmanager
def _management(host: Host, place: Place, deadline: Deadline) -> Iterator[Management]:
    """The management device; one on a virtio PCI device after that is bound to vp-vdpa."""
    with ExitStack() as stack:
        for module in ("vhost_vdpa", *(["vp_vdpa"] if place.sort == "vp_vdpa" else [])):
            # Built in, or loaded by hand, there is no file to load: what counts is seen below.
            host.run(["modprobe", "--quiet", module], deadline, check=False)
        if place.sort == "vp_vdpa" and place.pci:
            stack.enter_context(vdpa_bus.link_kept(host, place.pci, deadline))
            stack.enter_context(vdpa_bus.bound(host, "pci", place.pci, "vp-vdpa", deadline))
        found = vdpa_bus.managements(host, deadline)
        if place.name not in found:
            raise HostError(
                f"use {place.name}",
                host=host.name,
                said="it is no vDPA management device for networks; there are: "
                + (", ".join(found) or "none"),
                remedy="load its driver; `vdpa mgmtdev show` lists what can be named in the lab",
            )
        yield found[place.name]


def _settings(
    interface: Interface, offer: Management, features: frozenset[str]
) -> Mapping[str, str]:
    settings = {"mac": interface.mac}
    if interface.queues > 1:
        settings["max_vqp"] = str(interface.queues)
    if features != offer.features:
        settings["device_features"] = f"{feature_mask(features):#x}"
    return settings


def _must_fit(
    host: Host, interface: Interface, offer: Management, features: frozenset[str]
) -> None:
    """What the case wants of the device, against what its management device offers."""
    rings = 2 * interface.queues + ("ctrl_vq" in features)
    lacks = []
    if rings > offer.max_vqs:
        lacks.append(f"{rings} virtqueues, it has {offer.max_vqs}")
    if interface.queues > 1 and "mq" not in features:
        lacks.append("mq for more than one queue")
    if interface.ring == "packed" and "ring_packed" not in features:
        lacks.append("ring_packed")
    if lacks:
        raise HostError(
            f"use {offer.name}",
            host=host.name,
            said=f"the interface needs {' and '.join(lacks)}",
            remedy="interface.queues = 1 and ring = 'split', or another management device",
        )


def _must_be(host: Host, interface: Interface, has: vdpa_bus.Config) -> None:
    """A device that can't be told its MAC or MTU has its own: it must be what the case wants."""
    if has.mac is not None and has.mac != interface.mac:
        raise HostError(
            "give the vDPA device its MAC",
            host=host.name,
            said=f"the device has {has.mac} and can't be told another, the case wants "
            f"{interface.mac}",
            remedy=f"interface.mac = '{has.mac}' if both hosts have it, or set it on the device",
        )
    if has.mtu is not None and has.mtu < interface.mtu:
        raise HostError(
            "use the vDPA device",
            host=host.name,
            said=f"its MTU is {has.mtu}, the case wants {interface.mtu}",
            remedy="a larger MTU on the device behind it",
        )
    if has.max_vqp is not None and has.max_vqp < interface.queues:
        raise HostError(
            "use the vDPA device",
            host=host.name,
            said=f"it has {has.max_vqp} pairs of queues, the case wants {interface.queues}",
            remedy=f"interface.queues = {has.max_vqp}",
        )


def _put_script(host: Host, deadline: Deadline) -> None:
    """Once for a host; it stays: an emulator that libvirt has looked at once is quick to start."""
    text = SHADOW_SOURCE.read_text()
    if host.run(["cat", SHADOW_EMULATOR], deadline, check=False).out == text:
        return
    making = f"{SHADOW_EMULATOR}.making"
    host.run(["tee", making], deadline, text=text)
    host.run(["chmod", "755", making], deadline)
    host.run(["mv", making, SHADOW_EMULATOR], deadline)
