"""XML of devices from templates, and the rewrites that make a source's domain the target's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree as ET

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from migrate.data import data_path
from migrate.model import Interface

TEMPLATES = data_path("domains")


Rewrite = Callable[[ET.Element], None]


def device_xml(name: str, interface: Interface, backend: Mapping[str, Any]) -> str:
    """A device that is plugged into a guest that runs already."""
    return template(name).render(interface=interface, backend=backend)


def template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


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
