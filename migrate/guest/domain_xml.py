"""Domain XML: a guest and its interface in, libvirt's XML out; the one door to jinja2 for domains.

The target's XML is the source's after small pure rewrites; golden pairs beside the templates hold
both. libvirt validates it against its own schema when the domain is started.
"""

from __future__ import annotations

from pathlib import Path

from migrate.backends.base import Backend
from migrate.backends.xml import template
from migrate.drivers.libvirt import CHANNEL
from migrate.formats.xml_document import parse_xml
from migrate.guest.identity import NAMESPACE, NOBODY, PREFIX
from migrate.images.initramfs import Image
from migrate.model import GuestSpec, Interface

NAME = "guest"
"""Of every domain of ours; whether one is ours is told by its identity, never by this."""
MONITOR = "/run/libvirt/qemu/migrate-lab.monitor"
"""A monitor of our own beside libvirt's: it answers while libvirt migrates, and is told events."""
QEMU_ARGUMENTS = (
    *("-qmp", f"unix:{MONITOR},server=on,wait=off"),
    # Since QEMU 8.2, with its log backend: stages of the stop, each device's save and load.
    *("-trace", "enable=vmstate_downtime_*"),
)
CONSOLE = "/var/log/libvirt/guest-console.log"
QEMU_LOG = f"/var/log/libvirt/qemu/{NAME}.log"
LOGS = {"qemu": QEMU_LOG, "console": CONSOLE, "libvirt": "/var/log/libvirt/libvirtd.log"}
"""Of a guest and its libvirt, on every host that has had it."""


def domain_xml(
    guest: GuestSpec,
    interface: Interface,
    boot: Image | Path,
    backend: Backend,
    *,
    machine: str,
    accelerator: str,
    cpu_model: str | None = None,
) -> str:
    """The domain of ``guest``, nobody's yet; ``backend`` is what backs its interface there.

    It boots the kernel of an image, or by its own loader the qcow2 disk at a path of the host.
    ``machine`` is a versioned machine type that both hosts know; ``accelerator`` kvm or qemu.
    """
    return template("guest.xml.j2").render(
        name=NAME,
        identity=NOBODY,
        prefix=PREFIX,
        namespace=NAMESPACE,
        console=CONSOLE,
        channel=CHANNEL,
        guest=guest,
        interface=interface,
        backend=backend,
        machine=machine,
        accelerator=accelerator,
        cpu_model=cpu_model,
        image=None if isinstance(boot, Path) else boot,
        qemu_arguments=QEMU_ARGUMENTS,
        disk=boot if isinstance(boot, Path) else None,
    )


def has_interface(xml: str) -> bool:
    """Whether a domain has a network interface from its start on."""
    return parse_xml(xml, "read the domain's XML").find("./devices/interface") is not None
