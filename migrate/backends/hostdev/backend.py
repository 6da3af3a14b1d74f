"""``hostdev``: a VF of the host is the guest's own device, by VFIO.

The guest is started without the VF, and it is plugged in once the guest runs. A domain with a plain
VF can't be migrated, and libvirt says so; it can with a VFIO driver that carries the device's
state, which is tried wherever the VF got such a driver (see
:mod:`migrate.backends.sriov.allocation`). The method ``reattach`` takes it out, moves the guest and
plugs the target's in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrate.backends.base import Backend, BackendMode
from migrate.backends.hostdev.rules import RULES
from migrate.backends.sriov.allocation import LEFTOVERS, lease_vf
from migrate.backends.sriov.capabilities import INSPECTION
from migrate.backends.sriov.passthrough import SPARE_PORTS, GuestVf, vf_rewrite, vf_xml
from migrate.backends.xml import Rewrite
from migrate.clock import Deadline
from migrate.model import Interface

if TYPE_CHECKING:
    from migrate.lab.api import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class HostdevBackend(Backend):
    """A VF."""

    spare_ports: int = SPARE_PORTS
    vf: GuestVf


class Hostdev(BackendMode[HostdevBackend]):
    """A VF, and nothing else."""

    needs = ("sriov", "iommu")
    needs_to_migrate = ("vfio-variant",)
    inspections = (INSPECTION,)
    leftovers = LEFTOVERS
    rules = RULES
    has_vf = True
    can_reattach = True

    @contextmanager
    def create(
        self, host: Host, interface: Interface, deadline: Deadline
    ) -> Iterator[HostdevBackend]:
        """A VF that nobody else has."""
        with lease_vf(host, interface, deadline) as vf:
            yield HostdevBackend(vf=GuestVf.of(vf))

    def hotplug_xml(self, interface: Interface, backend: HostdevBackend) -> str:
        """The VF."""
        return vf_xml(interface, backend.vf)

    def target_rewrites(
        self, source: HostdevBackend, target: HostdevBackend
    ) -> tuple[Rewrite, ...]:
        """The target's VF has an address of its own."""
        return vf_rewrite(source.vf, target.vf)
