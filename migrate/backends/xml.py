"""XML of devices from templates, and the rewrites that make a source's domain the target's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from migrate.data import data_path
from migrate.formats.xml_document import parse_xml

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = data_path("domains")


Rewrite = Callable[[ET.Element], None]
"""Changes a domain, given by its root element, in place."""


def template(name: str) -> Template:
    """A template of ``domains/``. What it asks for and is not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415  slow

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def source_rewrite(kind: str, key: str, source: str, target: str) -> tuple[Rewrite, ...]:
    """What makes an interface's ``<source key=source>`` the target's; nothing if it is the same."""
    if source == target:
        return ()

    def move(root: ET.Element) -> None:
        for element in root.iterfind(f"./devices/interface[@type='{kind}']/source"):
            if element.get(key) == source:
                element.set(key, target)

    return (move,)


def rewritten(xml: str, rewrites: tuple[Rewrite, ...]) -> str:
    """``xml`` after each rewrite. HostError if it is none."""
    root = parse_xml(xml, "read the domain's XML")
    for rewrite in rewrites:
        rewrite(root)
    return ET.tostring(root, encoding="unicode")
