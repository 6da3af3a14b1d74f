"""Whose a domain is: a UUID made for the attempt, written down on each host before the domain is
there, and metadata in the domain that says the same.

What has our name alone, or is a copy of our XML, is somebody else's: it is left alone.
"""

from __future__ import annotations

import uuid
from xml.etree import ElementTree as ET

from pydantic import Field, ValidationError

from migrate.clock import Deadline
from migrate.drivers.libvirt import Domain
from migrate.errors import HostError
from migrate.formats.xml_document import element_at, parse_xml
from migrate.lab.api import Host
from migrate.lab.host_journal import RUN, keep
from migrate.model import Value

NAMESPACE = "urn:migrate-lab:guest"
"""Of our element in a domain's ``<metadata>``."""
PREFIX = "migrate-lab"
JOURNAL = f"{RUN}/guests"
"""A folder of each host, one file a guest: gone after a reboot, as the guests are."""

ET.register_namespace(PREFIX, NAMESPACE)


class Identity(Value):
    """A guest of ours, for one attempt."""

    uuid: str = Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    lab: str = ""
    run: str = ""
    case: str = ""

    @classmethod
    def new(cls, lab: str = "", run: str = "", case: str = "") -> Identity:
        """One that nobody has."""
        return cls(uuid=str(uuid.uuid4()), lab=lab, run=run, case=case)

    @property
    def tap(self) -> str:
        """The name of its tap on every host; the kernel takes 15 characters."""
        return f"mlab{self.uuid[:8]}"

    def mark(self, root: ET.Element) -> None:
        """Make a domain this guest's: a rewrite of XML that has another identity of ours."""
        tried = "name the guest"
        element_at(root, "./uuid", tried).text = self.uuid
        ours = element_at(root, f"./metadata/{{{NAMESPACE}}}guest", tried)
        ours.attrib.update(self.model_dump())
        for target in root.iterfind("./devices/interface[@type='bridge']/target"):
            target.set("dev", self.tap)

    def owns(self, domain: Domain) -> bool:
        """Whether UUID and metadata of ``domain`` are this guest's."""
        return domain.uuid == self.uuid and marked(domain)


NOBODY = Identity(uuid=str(uuid.UUID(int=0)))
"""The identity of a guest that is nobody's yet: saved states are kept under it."""


def marked(domain: Domain) -> bool:
    """Whether the domain's metadata is ours, and of a domain with this UUID: not of a copy."""
    text = domain.metadata(NAMESPACE)
    if text is None:
        return False
    tried = f"read our metadata in the domain {domain.name}"
    return parse_xml(text, tried, host=domain.host).get("uuid") == domain.uuid


# --- the journal on a host ----------------------------------------------------------------------


def record(host: Host, identity: Identity, deadline: Deadline) -> None:
    """Write down that this guest may be on the host from now on."""
    keep(host, f"{JOURNAL}/{identity.uuid}", identity.model_dump_json() + "\n", deadline)


def recorded(host: Host, deadline: Deadline) -> tuple[Identity, ...]:
    """The guests that may be on the host. HostError: something else lies in the journal."""
    look = f'for file in {JOURNAL}/*; do [ ! -e "$file" ] || cat "$file"; done'
    try:
        lines = host.run(["sh", "-ec", look], deadline).out.splitlines()
        return tuple(Identity.model_validate_json(line) for line in lines)
    except ValidationError as error:
        raise HostError(
            "read which guests are ours",
            host=host.name,
            said=str(error.errors()[0]["msg"]),
            remedy=f"look into {JOURNAL} there: it was not written by this version",
        ) from error


def forget(host: Host, identity: Identity, deadline: Deadline) -> None:
    """The guest is not on the host any more."""
    host.run(["rm", "-f", f"{JOURNAL}/{identity.uuid}"], deadline)
