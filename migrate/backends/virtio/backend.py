"""``virtio``: a tap on a bridge of the host; with vhost-net in the kernel where the host has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrate.backends.base import Backend, BackendMode
from migrate.backends.xml import Rewrite, source_rewrite
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.model import Interface

if TYPE_CHECKING:
    from migrate.lab.api import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtioBackend(Backend):
    """A bridge of the host."""

    bridge: str


class Virtio(BackendMode[VirtioBackend]):
    """libvirt makes the tap and takes it away with the domain."""

    needs = ("tun",)

    @contextmanager
    def create(
        self, host: Host, interface: Interface, deadline: Deadline
    ) -> Iterator[VirtioBackend]:
        """The bridge must be there; it belongs to the lab."""
        del interface
        yield VirtioBackend(bridge=data_bridge(host, deadline))

    def target_rewrites(self, source: VirtioBackend, target: VirtioBackend) -> tuple[Rewrite, ...]:
        """Bridges may have other names on other hosts."""
        return source_rewrite("bridge", "bridge", source.bridge, target.bridge)


def data_bridge(host: Host, deadline: Deadline) -> str:
    """The bridge that guests' taps are put on; HostError if the host has none."""
    bridge = host.resources.bridge
    if host.run(["ip", "link", "show", bridge], deadline, check=False).status != 0:
        raise HostError(
            "use the data bridge", host=host.name, said=f"no link {bridge}", remedy="lab up"
        )
    return bridge
