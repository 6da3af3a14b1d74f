"""``vdpa``: a device of the kernel's vDPA bus moves the packets; QEMU has it by vhost-vdpa.

The device is made on a management device that the host provides, and goes with its block. How QEMU
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
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from migrate.backends.base import EMULATOR, Backend, BackendMode
from migrate.backends.vdpa import bus as vdpa_bus
from migrate.backends.vdpa.bus import Offer
from migrate.backends.vdpa.capabilities import INSPECTION
from migrate.backends.vdpa.management import (
    SUSPENDING,
    ManagementDevice,
    choose_device,
    management_offer,
)
from migrate.backends.vdpa.rules import RULES
from migrate.backends.xml import Rewrite, source_rewrite
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.formats.virtio_features import feature_mask, not_shadowable
from migrate.lab.host_journal import keep
from migrate.model import Interface

if TYPE_CHECKING:
    from migrate.lab.api import Host

SHADOW_EMULATOR = "/usr/local/bin/qemu-system-x86_64-shadow"
"""On each host, always the same: libvirt keeps what an emulator can do by its path."""
SHADOW_SOURCE = Path(__file__).with_name("qemu-shadow.sh")
"""The text of the same, to be put on a host or into its image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VdpaBackend(Backend):
    """A device of the vDPA bus."""

    device: str
    """The path of its node, e.g. ``/dev/vhost-vdpa-0``."""
    features: frozenset[str]
    """What it offers, by virtio's names in small letters."""


class Vdpa(BackendMode[VdpaBackend]):
    """One vDPA device for the guest."""

    needs = ("vhost-vdpa",)
    inspections = (INSPECTION,)
    leftovers = (vdpa_bus.DEVICE_LEFTOVER,)
    rules = RULES

    @contextmanager
    def create(self, host: Host, interface: Interface, deadline: Deadline) -> Iterator[VdpaBackend]:
        """A device that fits the interface, and QEMU's script where its rings are shadowed."""
        with ExitStack() as stack:
            vdpa_bus.remove(host)  # of a controller that was killed
            device = choose_device(host, interface, deadline)
            offer = stack.enter_context(management_offer(host, device, deadline))
            features = offer.features - set(interface.vdpa.features_off)
            _check_offer(host, interface, offer, features)
            settings = _settings(host, interface, offer, features)
            node = stack.enter_context(vdpa_bus.add_device(host, offer.name, settings, deadline))
            _check_config(host, interface, vdpa_bus.config(host, vdpa_bus.NAME, deadline))
            shadow, how = choose_shadow(interface, device)
            if shadow:
                _put_script(host, deadline)
            yield VdpaBackend(
                device=node,
                emulator=SHADOW_EMULATOR if shadow else EMULATOR,
                iommu="access_platform" in features,
                features=features,
                save_key=",".join(sorted(features)),
                supports_save=_supports_save(device, shadow, features),
                loopback=device.kind == "vdpasim_net",
                notes=(f"{host.name}: {device.name} ({device.driver_name}), {how}",),
            )

    def backend_errors(self, log: str) -> tuple[str, ...]:
        """That QEMU could not start the device, or read or set the state of its rings.

        QEMU goes on without: packets then end in a dummy backend, and nobody is told.
        """
        lines = log.splitlines()
        if not any(map(_FAILED.search, lines)):
            return ()
        told = (line for line in lines if _FAILED.search(line) or _WHY.search(line))
        return tuple(dict.fromkeys(_STAMP.sub("", line) for line in told))

    def target_rewrites(self, source: VdpaBackend, target: VdpaBackend) -> tuple[Rewrite, ...]:
        """Nodes have other numbers on other hosts. HostError if features differ: said before QEMU
        does, when the guest's state is loaded."""
        if lost := source.features - target.features:
            listed = sorted(lost)
            raise HostError(
                "give the guest the same device on the target",
                said=f"the source's vDPA device offers {', '.join(listed)}, the target's does not",
                remedy=f"interface.vdpa.features_off = {listed}",
            )
        moves = source_rewrite("vdpa", "dev", source.device, target.device)
        if source.emulator == target.emulator:
            return moves

        def other_emulator(root: ET.Element) -> None:
            for element in root.iterfind("./devices/emulator"):
                element.text = target.emulator

        return (*moves, other_emulator)


_STAMP = re.compile(r"^\S+Z (?=qemu)")
_FAILED = re.compile(
    r"falling back on userspace virtio"
    r"|vhost_set_vring_\w+ failed"
    r"|vhost VQ \d+ ring restore failed"
    r"|vhost vdpa map fail"
)
_WHY = re.compile(r"failed to write, fd=\d+, errno=\d+")
"""What the kernel said; also where QEMU goes on all the same. QEMU: hw/net/virtio-net.c,
hw/virtio/vhost.c, hw/virtio/vhost-vdpa.c."""


def choose_shadow(interface: Interface, device: ManagementDevice) -> tuple[bool, str]:
    """Whether QEMU stands between guest and device all the time, and the same in words."""
    wanted = interface.vdpa.shadow
    able = device.driver in SUSPENDING
    if wanted == "on":
        return True, "shadow virtqueues all the time (x-svq), as asked"
    if wanted == "off" and not able:
        return False, "rings of its own, as asked, though it can't be suspended to tell their state"
    if able:
        return False, "rings of its own; shadowed from the start of a migration, then suspended"
    return True, "shadow virtqueues all the time (x-svq): it can't be suspended to tell its rings"


def _supports_save(device: ManagementDevice, shadow: bool, features: frozenset[str]) -> bool:
    """Whether the guest can be saved and restored with this backend."""
    return shadow or (device.driver in SUSPENDING and not not_shadowable(features))


def _settings(
    host: Host, interface: Interface, offer: Offer, features: frozenset[str]
) -> Mapping[str, str]:
    settings = {"mac": interface.mac}
    if interface.queues > 1:
        settings["max_vqp"] = str(interface.queues)
    if features != offer.features:
        settings["device_features"] = f"{feature_mask(features, host=host.name):#x}"
    return settings


def _check_offer(host: Host, interface: Interface, offer: Offer, features: frozenset[str]) -> None:
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


def _check_config(host: Host, interface: Interface, has: vdpa_bus.DeviceConfig) -> None:
    """A device that can't be told its MAC or MTU has its own: it must be what the case wants."""
    if has.mac is not None and has.mac != interface.mac:
        raise HostError(
            "give the vDPA device its MAC",
            host=host.name,
            said=f"the device has {has.mac} which can't be changed; the case needs {interface.mac}",
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
    keep(host, SHADOW_EMULATOR, text, deadline, mode="755")
