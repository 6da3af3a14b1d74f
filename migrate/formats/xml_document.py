"""XML of libvirt's, read with bounds: no document type, so no entities of its own, no depth without
end."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from migrate.errors import HostError
from migrate.formats.answers import MOST_TEXT, MalformedError, quote

DEEPEST = 100
"""Elements inside of one another; a domain has eight."""


class _Builder(ET.TreeBuilder):
    """Raises ValueError for what no document of libvirt's has."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def start(self, tag: str, attributes: dict[str, str]) -> ET.Element:
        """An element begins."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} elements are inside of one another")
        return super().start(tag, attributes)

    def end(self, tag: str) -> ET.Element:
        """An element ends."""
        self._depth -= 1
        return super().end(tag)

    def doctype(self, _name: str, _public: str | None, _system: str | None) -> None:
        """A document type, in which entities could be made."""
        raise ValueError("it has a document type")


def parse_xml(text: str, tried: str, *, host: str = "") -> ET.Element:
    """The root of a document. Raises MalformedError."""
    if len(text) > MOST_TEXT:
        raise MalformedError(tried, host=host, said=f"the XML has {len(text)} characters")
    parser = ET.XMLParser(target=_Builder())  # noqa: S314  bounded by its builder
    try:
        parser.feed(text)
        root: ET.Element = parser.close()
    except (ET.ParseError, ValueError) as error:  # ValueError: ours, and half a surrogate pair
        said = f"it is no XML that can be read: {error}: {quote(text)}"
        raise MalformedError(tried, host=host, said=said) from error
    return root


def element_at(root: ET.Element, path: str, tried: str, *, host: str = "") -> ET.Element:
    """The first element at ``path``. Raises HostError where there is none."""
    element = root.find(path)
    if element is None:
        raise HostError(tried, host=host, said=f"the XML of {root.tag} has no {path}")
    return element
