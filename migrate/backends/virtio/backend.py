"""``virtio``: a tap on a bridge of the host; with vhost-net in the kernel where the host has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from migrate.backends.xml import Rewrite, moved_source
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.lab.api import Host
from migrate.model import Interface


class Virtio:
    """libvirt makes the tap and takes it away with the domain."""

    logs: Mapping[str, str] = MappingProxyType({})
    needs = ("tun",)

    @contextmanager
    def provide(
        self, host: Host, interface: Interface, deadline: Deadline
    ) -> Iterator[Mapping[str, Any]]:
        """The bridge must be there; it belongs to the lab."""
        del interface
        bridge = host.resources.bridge
        if host.run(["ip", "link", "show", bridge], deadline, check=False).status != 0:
            raise HostError(
                "use the data bridge", host=host.name, said=f"no link {bridge}", remedy="lab up"
            )
        yield {"bridge": bridge}

    def describe(self, interface: Interface, backend: Mapping[str, Any]) -> Mapping[str, Any]:
        """The bridge."""
        del interface
        return backend

    def plugs(self, interface: Interface, backend: Mapping[str, Any]) -> str | None:
        """Nothing."""
        del interface, backend
        return None

    def complaints(self, log: str) -> tuple[str, ...]:
        """None that are known."""
        del log
        return ()

    def adapt(self, source: Mapping[str, Any], target: Mapping[str, Any]) -> tuple[Rewrite, ...]:
        """Bridges may have other names on other hosts."""
        return moved_source("bridge", "bridge", source["bridge"], target["bridge"])
