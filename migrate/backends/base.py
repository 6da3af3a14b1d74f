"""What a mode is: how the guest's network interface is backed on a host, and all that follows.

A mode is a subclass of :class:`BackendMode` in a folder of its own, and answers only what is
different with it. What the guest sees of its device is compared alike for every mode. All that is
imported here is quick to import: scenarios are read by the modes' rules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from migrate.backends.rule import Rule
from migrate.backends.xml import Rewrite
from migrate.clock import Deadline, Offset
from migrate.errors import HostError
from migrate.lab.capabilities import Inspection
from migrate.model import Event, Interface, PhaseName

if TYPE_CHECKING:
    from migrate.lab.api import Host

EMULATOR = "/usr/bin/qemu-system-x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What backs the interface on one host, and what follows for the guest.

    A mode's own adds what the backend is called there: a bridge, a socket, a VF's address.
    """

    emulator: str = EMULATOR
    iommu: bool = False
    """The device's addresses go through the guest's IOMMU: ``<driver iommu='on'/>``."""
    shared_memory: bool = False
    """The guest's memory must be shared with another process of the host."""
    spare_ports: int = 0
    """PCIe root ports for what is plugged in later."""
    supports_save: bool = True
    """Whether the guest can be saved and restored with this backend."""
    save_key: str = ""
    """What a saved state depends on that is not in the domain's XML."""
    loopback: bool = False
    """It returns what the guest sends, and has no peer."""
    has_standby: bool = False
    """The guest's interface is a failover pair: a primary carries, and a standby waits."""
    missing_primary: HostError | None = None
    """Why no guest can be started here, though one can come here without its device."""
    notes: tuple[str, ...] = ()
    """For the attempt."""


B = TypeVar("B", bound=Backend)


@dataclass(frozen=True, slots=True)
class LeftoverKind:
    """What an attempt makes on a host, and must not leave there."""

    name: str
    """E.g. ``VFs of {}``, where the braces are a line of the script's."""
    script: str
    """Shell that prints each that is there on a line, and is quick: every attempt ends with it."""
    put_back: Callable[[Host, str, Deadline], object]
    """Put back the one of this line."""


class BackendMode(ABC, Generic[B]):
    """A way to back an interface."""

    needs: ClassVar[tuple[str, ...]]
    """Capabilities that a host must have, by their names in ``migrate-lab doctor``."""
    needs_to_migrate: ClassVar[tuple[str, ...]] = ()
    """Capabilities that it takes beside :attr:`needs` for a guest to be migrated as it is. A case
    that asks for that is tried all the same: the hypervisor's own refusal is a finding."""
    inspections: ClassVar[tuple[Inspection, ...]] = ()
    """How to find out about capabilities that no lab knows by itself; modes that share a mechanism
    share its entry."""
    logs: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Logs of the backend by name, as paths on the host."""
    processes: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    """What serves guests on a host, by name, with the files that may have their process ids."""
    leftovers: ClassVar[tuple[LeftoverKind, ...]] = ()
    """What an attempt may leave on a host; shared as :attr:`inspections`."""

    rules: ClassVar[tuple[Rule, ...]] = ()
    """What a case with this mode may not ask for."""
    phases: ClassVar[frozenset[PhaseName]] = frozenset()
    """Phases that only a move with this mode has."""
    has_vf: ClassVar[bool] = False
    """Whether ``interface.vf`` means anything."""
    can_reattach: ClassVar[bool] = False
    """Whether the guest can be moved without its device, which is plugged in again there."""
    has_process: ClassVar[bool] = False
    """Whether a process of the host serves the guest, which can crash: :meth:`crash`."""

    @abstractmethod
    def create(
        self, host: Host, interface: Interface, deadline: Deadline
    ) -> AbstractContextManager[B]:
        """Have the backend on ``host`` while the block runs; HostError if it can't be had."""

    @abstractmethod
    def target_rewrites(self, source: B, target: B) -> tuple[Rewrite, ...]:
        """What makes the source's XML the target's; nothing where both backends are the same."""

    def hotplug_xml(self, interface: Interface, backend: B) -> str | None:
        """The device that is plugged in once the guest runs: one that no saved state can hold.

        It is not in the domain as that is started, and part of it from then on.
        """
        del interface, backend
        return None

    def log_events(self, logs: Mapping[str, str], host: str, wall: Offset) -> Iterable[Event]:
        """What the texts of :attr:`logs` tell of a move on ``host``, on the axis by its wall clock;
        ``logs`` has whatever could be read."""
        del logs, host, wall
        return ()

    def backend_errors(self, log: str) -> tuple[str, ...]:
        """The lines of QEMU's log by which the backend failed the guest, though it runs on."""
        del log
        return ()

    def crash(self, host: Host, deadline: Deadline) -> None:
        """End the process that serves the guest, as a crash would."""
        del deadline
        raise HostError(
            "stop the backend", host=host.name, said="no process serves an interface of this mode"
        )
