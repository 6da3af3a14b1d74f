"""Domain XML: a guest and its interface in, libvirt's XML out; the one door to jinja2 for domains.

The target's XML is the source's after small pure rewrites; golden pairs beside the templates hold
both. libvirt validates it against its own schema when the domain is started.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from migrate.image import Image
from migrate.libvirt_client import CHANNEL
from migrate.model import GuestSpec, Interface

TEMPLATES = Path(__file__).parents[1] / "domains"
NAME = "guest"
UUID = "6d6c6162-0000-4000-8000-000000000001"
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

Rewrite = Callable[[ET.Element], None]


def domain_xml(
    guest: GuestSpec,
    interface: Interface,
    boot: Image | Path,
    backend: Mapping[str, Any],
    *,
    machine: str,
    accelerator: str,
    cpu_model: str | None = None,
) -> str:
    """The domain of ``guest``; ``backend`` is what the interface's module describes.

    It boots the kernel of an image, or by its own loader the qcow2 disk at a path of the host.
    ``machine`` is a versioned machine type that both hosts know; ``accelerator`` kvm or qemu.
    """
    return _template("guest.xml.j2").render(
        name=NAME,
        uuid=UUID,
        console=CONSOLE,
        channel=CHANNEL,
        guest=guest,
        interface=interface,
        backend=backend,
        shared_memory=bool(backend.get("shared_memory")),
        machine=machine,
        accelerator=accelerator,
        cpu_model=cpu_model,
        image=None if isinstance(boot, Path) else boot,
        qemu_arguments=QEMU_ARGUMENTS,
        disk=boot if isinstance(boot, Path) else None,
    )


def device_xml(template: str, interface: Interface, backend: Mapping[str, Any]) -> str:
    """A device that is plugged into a guest that runs already."""
    return _template(template).render(interface=interface, backend=backend)


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def has_interface(xml: str) -> bool:
    """Whether a domain has a network interface from its start on."""
    return ET.fromstring(xml).find("./devices/interface") is not None  # noqa: S314  our own XML


def moved_source(kind: str, key: str, source: str, target: str) -> tuple[Rewrite, ...]:
    """What makes an interface's ``<source key=source>`` that of the target; none if it is one."""
    if source == target:
        return ()

    def move(root: ET.Element) -> None:
        for element in root.iterfind(f"./devices/interface[@type='{kind}']/source"):
            if element.get(key) == source:
                element.set(key, target)

    return (move,)


def rewritten(xml: str, rewrites: tuple[Rewrite, ...]) -> str:
    """``xml`` after each rewrite; they see the root element and change it in place."""
    root = ET.fromstring(xml)  # noqa: S314  our own XML, or libvirt's
    for rewrite in rewrites:
        rewrite(root)
    return ET.tostring(root, encoding="unicode")


def digest(*parts: str) -> str:
    """A short name for what a saved state depends on."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(f"{len(part)}:{part}".encode())
    return whole.hexdigest()[:20]
